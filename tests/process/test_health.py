"""Standstill, deadlines and the drain of one real server, in this order: the last test ends it."""

import concurrent.futures
import os
import signal
import time

import httpx
import pytest

from tests.conftest import start_server

pytestmark = pytest.mark.engine

STALL_S, DEADLINE_S, DRAIN_S = 3, 12, 4
SETTINGS = {
    "TOKENPORT_STALL_S": str(STALL_S),
    "TOKENPORT_DEADLINE_S": str(DEADLINE_S),
    "TOKENPORT_STREAM_DEADLINE_S": str(DEADLINE_S),
    "TOKENPORT_DRAIN_S": str(DRAIN_S),
    "TOKENPORT_MAX_MODEL_LEN": "8192",
}
PROMPT = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True}
CHAT = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 4000, "ignore_eos": True}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory, cache_dir):
    with start_server(tmp_path_factory.mktemp("impatient"), cache_dir, **SETTINGS) as server:
        yield server


def ping(server) -> httpx.Response:
    return httpx.get(f"{server.url}/ping", timeout=2)


def wait_status(server, status: int, deadline_s: float) -> float:
    started = time.monotonic()
    while ping(server).status_code != status:
        assert time.monotonic() - started < deadline_s, f"/ping is not {status} after {deadline_s} s"
        time.sleep(0.05)
    return time.monotonic() - started


def post(server, path: str, body: dict) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return httpx.post(f"{server.url}{path}", json=body, timeout=60), time.monotonic() - started


def events(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def test_a_long_prefill_is_no_standstill(impatient):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # Of a prompt this long a step takes 256 tokens, and the first token comes after the last of them.
        answering = pool.submit(post, impatient, "/invocations", {"prompt": [100 + i % 4000 for i in range(8000)], "max_tokens": 1})
        statuses = set()
        while not answering.done():
            statuses.add(ping(impatient).status_code)
            time.sleep(0.1)
        answer, _ = answering.result()
    assert answer.status_code in (200, 503)  # a slow machine does not get it done before the deadline, and that is no standstill either
    assert statuses == {200}


def test_at_the_deadline_an_answer_ends_with_the_text_so_far(impatient):
    asked = [(path, body | {"stream": stream}) for path in ("/invocations", "/v1") for body in (PROMPT, CHAT) for stream in (False, True)]
    routes = {"/v1": {True: "/v1/chat/completions", False: "/v1/completions"}}

    def ask(path: str, body: dict) -> tuple[httpx.Response, float]:
        return post(impatient, routes[path]["messages" in body] if path in routes else path, body)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        answered = list(pool.map(lambda item: ask(*item), asked))
    for (path, body), (answer, seconds) in zip(asked, answered, strict=True):
        assert answer.status_code == 200, (path, answer.text)
        assert DEADLINE_S - 0.5 < seconds < DEADLINE_S + 3
        if body["stream"]:
            assert events(answer.text)[-1] == "[DONE]"
            assert '"finish_reason":"length","stop_reason":"deadline"' in events(answer.text)[-2]
            continue
        choice = answer.json()["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "deadline")
        assert len(choice.get("text") or choice["message"]["content"]) > 20
        assert answer.headers["x-tokenport-ended-by"] == "deadline"
        assert answer.headers["x-tokenport-deadline-s"] == str(DEADLINE_S)


def test_a_frozen_engine_is_told_by_ping_until_it_goes_on(impatient):
    engine = impatient.engine_pid()
    os.kill(engine, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answering = pool.submit(post, impatient, "/invocations", PROMPT)
            assert wait_status(impatient, 503, STALL_S + 3) > STALL_S - 0.5
            assert ping(impatient).json()["status"] == "stalled"
            refused, _ = post(impatient, "/invocations", PROMPT)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            # The one that waits is not left to hang.
            answer, seconds = answering.result()
            assert answer.status_code == 503
            assert "deadline" in answer.json()["error"]["message"]
            assert seconds < DEADLINE_S + 3
            # Its client has gone, and the engine is no healthier for it.
            time.sleep(1)
            assert ping(impatient).status_code == 503
    finally:
        os.kill(engine, signal.SIGCONT)
    wait_status(impatient, 200, 10)
    answer, _ = post(impatient, "/invocations", PROMPT | {"max_tokens": 5})
    assert answer.status_code == 200


def test_at_the_drain_deadline_what_is_left_is_told_so(impatient):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stream = pool.submit(post, impatient, "/v1/chat/completions", CHAT | {"stream": True})
        lines = pool.submit(post, impatient, "/invocations", PROMPT | {"stream": True})
        whole = pool.submit(post, impatient, "/invocations", PROMPT)
        time.sleep(2)
        started = time.monotonic()
        impatient.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert ping(impatient).json()["status"] == "draining"
        assert impatient.process.wait(DRAIN_S + 6) == 0
        assert time.monotonic() - started > DRAIN_S - 0.5
        for streamed in (stream, lines):
            answer, _ = streamed.result()
            assert '"code": 503' in events(answer.text)[-2]
            assert "shutting down" in events(answer.text)[-2]
            assert events(answer.text)[-1] == "[DONE]"
        answer, _ = whole.result()
        assert answer.json()["choices"][0]["stop_reason"] == "shutdown"
        assert answer.headers["x-tokenport-ended-by"] == "shutdown"
