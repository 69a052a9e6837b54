"""The socket, over real ones: uvicorn as the server runs it, a client of another make, a scripted engine."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator

import pytest
import uvicorn
import websockets
from websockets.asyncio.client import ClientConnection, connect

from serving.api import bidirectional
from serving.api.lifecycle import Lifecycle
from serving.api.server import http_config
from serving.errors import InvalidRequest, NotReady
from tests.api.conftest import ScriptedChunks, ScriptedEngine

PATH = "/invocations-bidirectional-stream"
DEADLINE_S = 10


class PromptedEngine(ScriptedEngine):
    """Answers each prompt with what the test put under it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = {}

    async def generate(self, kind, body, request_id):
        self.answer = self.answers[body["prompt"]]
        return await super().generate(kind, body, request_id)


@pytest.fixture
def engine() -> PromptedEngine:
    return PromptedEngine()


@pytest.fixture
async def url(app) -> AsyncIterator[str]:
    # The protocol is named because asyncio gives TCP_NODELAY to such sockets only.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(http_config(app, app.state.max_body_bytes))
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        await until(lambda: server.started)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        server.should_exit = True
        await asyncio.wait_for(serving, DEADLINE_S)


@pytest.fixture
async def client(url) -> AsyncIterator[ClientConnection]:
    async with connect(url) as client:
        yield client


async def send(client: ClientConnection, **frame) -> None:
    await client.send(json.dumps(frame))


async def receive(client: ClientConnection) -> dict:
    text = await asyncio.wait_for(client.recv(), DEADLINE_S)
    assert isinstance(text, str)
    return json.loads(text)


async def closing(client: ClientConnection) -> int:
    """The code the server closes the socket with, having sent nothing more."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await asyncio.wait_for(client.recv(), DEADLINE_S)
    return closed.value.rcvd.code


async def until(condition) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < DEADLINE_S
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def held() -> tuple[ScriptedChunks, asyncio.Semaphore]:
    """An answer of many chunks, each of which waits until it is let go."""
    gate = asyncio.Semaphore(0)
    return ScriptedChunks([json.dumps({"n": number}) for number in range(1000)], gate), gate


async def test_an_answer_comes_in_chunks_and_is_done(client, engine):
    engine.answers["hi"] = ScriptedChunks(['{"a": 1}', '{"a": "ü"}'])
    await send(client, id="mine", prompt="hi")
    assert [await receive(client) for _ in range(3)] == [
        {"id": "mine", "type": "chunk", "data": {"a": 1}},
        {"id": "mine", "type": "chunk", "data": {"a": "ü"}},
        {"id": "mine", "type": "done"},
    ]
    assert engine.asked[0][:2] == ("completion", {"prompt": "hi", "stream": True})


async def test_requests_without_an_id_are_counted(client, engine):
    engine.answers["hi"] = b'{"whole": true}'
    for number in ("1", "2"):
        await send(client, prompt="hi", stream=False)
        assert await receive(client) == {"id": number, "type": "chunk", "data": {"whole": True}}
        assert await receive(client) == {"id": number, "type": "done"}


async def test_binary_frames_and_fragments_are_frames(client, engine):
    engine.answers["hi"] = b"{}"
    await client.send(json.dumps({"id": "a", "prompt": "hi", "stream": False}).encode())
    await client.send(['{"id": "b", "prompt"', ': "hi", "stream": false}'])
    assert [(await receive(client))["id"] for _ in range(4)] == ["a", "a", "b", "b"]


async def test_an_id_may_be_used_again_when_its_request_is_done(client, engine):
    engine.answers["hi"] = b"{}"
    for _ in range(50):
        await send(client, id="same", prompt="hi", stream=False)
        assert [(await receive(client))["type"] for _ in range(2)] == ["chunk", "done"]


async def test_several_requests_run_at_once(client, engine):
    answers = {name: held() for name in ("one", "two")}
    for name, (chunks, _) in answers.items():
        engine.answers[name] = chunks
        await send(client, id=name, prompt=name)
    for name in ("two", "one", "two"):
        answers[name][1].release()
        assert (await receive(client))["id"] == name


async def test_cancelling_stops_the_answer_and_leaves_the_others(client, engine, in_flight):
    stopped, gate = held()
    other, other_gate = held()
    engine.answers = {"stopped": stopped, "other": other}
    await send(client, id="stopped", prompt="stopped")
    gate.release()
    assert (await receive(client))["type"] == "chunk"
    await send(client, id="other", prompt="other")
    await until(lambda: in_flight.count == 2)
    await send(client, id="stopped", type="cancel")
    assert await receive(client) == {"id": "stopped", "type": "cancelled"}
    assert stopped.closed
    assert in_flight.count == 1
    other_gate.release()
    assert (await receive(client))["id"] == "other"


async def test_cancelling_before_the_first_token_stops_the_engine_too(client, engine):
    engine.answers["hi"] = asyncio.Event()
    await send(client, id="a", prompt="hi")
    await engine.was_asked.wait()
    await send(client, id="a", type="cancel")
    assert await receive(client) == {"id": "a", "type": "cancelled"}
    assert engine.cancelled.is_set()


@pytest.mark.parametrize(
    ("frame", "param", "message"),
    [
        ("{", None, "not JSON"),
        (b"\xff{", None, "not UTF-8"),
        ("", None, "empty"),
        ("[]", None, "JSON array"),
        ('{"type": "pause"}', "type", "'pause'"),
        ('{"id": 5, "prompt": "hi"}', "id", "string"),
        ('{"id": "", "prompt": "hi"}', "id", "string"),
        (json.dumps({"id": "x" * 65, "prompt": "hi"}), "id", "64"),
        ('{"type": "cancel"}', "id", "no request"),
        ('{"type": "cancel", "id": ["x"]}', "id", "no request"),
        ('{"type": "cancel", "id": "x"}', "id", "no request 'x'"),
        ('{"type": "cancel", "id": "x", "prompt": "hi"}', "prompt", "'prompt'"),
    ],
)
async def test_a_frame_that_begins_nothing_is_answered_by_an_error_without_id(client, engine, frame, param, message):
    await client.send(frame)
    answer = await receive(client)
    assert (answer["id"], answer["type"], answer["error"]["code"], answer["error"]["param"]) == (None, "error", 400, param)
    assert message in answer["error"]["message"]
    await test_requests_after_an_error_are_answered(client, engine)


async def test_requests_after_an_error_are_answered(client, engine):
    engine.answers["fine"] = b"{}"
    await send(client, id="fine", prompt="fine", stream=False)
    assert [await receive(client) for _ in range(2)] == [{"id": "fine", "type": "chunk", "data": {}}, {"id": "fine", "type": "done"}]


async def test_an_id_that_is_running_cannot_begin_again(client, engine):
    chunks, gate = held()
    engine.answers["hi"] = chunks
    await send(client, id="a", prompt="hi")
    await send(client, id="a", prompt="hi")
    refused = await receive(client)
    assert refused["id"] is None
    assert "'a' is running" in refused["error"]["message"]
    gate.release()
    assert (await receive(client))["id"] == "a"


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (InvalidRequest("temperature: too hot", param="temperature"), 400, "too hot"),
        (RuntimeError("secret"), 500, "internal error"),
        (
            ScriptedChunks(['{"a": 1}', json.dumps({"error": {"message": "ran out", "type": "x", "param": None, "code": 400}})]),
            400,
            "ran out",
        ),
    ],
    ids=["refused", "a fault of ours", "after the first chunk"],
)
async def test_a_failed_request_ends_with_its_error_and_the_socket_stays(client, engine, answer, status, message):
    engine.answers["hi"] = answer
    await send(client, id="a", prompt="hi")
    frame = await receive(client)
    if frame["type"] == "chunk":
        frame = await receive(client)
    assert (frame["id"], frame["type"], frame["error"]["code"]) == ("a", "error", status)
    assert message in frame["error"]["message"]
    await test_requests_after_an_error_are_answered(client, engine)


async def test_a_body_of_no_form_is_the_error_of_its_request(client):
    await send(client, id="a", hello=1)
    frame = await receive(client)
    assert frame["id"] == "a"
    assert "exactly one of" in frame["error"]["message"]


async def test_no_more_than_so_many_run_on_one_socket(client, engine):
    for number in range(bidirectional.MAX_RUNNING):
        engine.answers[str(number)] = held()[0]
        await send(client, prompt=str(number))
    await send(client, id="more", prompt="0")
    frame = await receive(client)
    assert (frame["id"], frame["error"]["code"]) == ("more", 429)


class TestAFullQueue:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_MAX_QUEUE": "0"}

    async def test_refuses_on_a_socket_as_it_does_elsewhere(self, client, engine):
        for number in range(engine.capacity.num_sequences):
            engine.answers[str(number)] = held()[0]
            await send(client, prompt=str(number))
        await send(client, id="more", prompt="0")
        frame = await receive(client)
        assert (frame["id"], frame["error"]["code"]) == ("more", 429)
        assert "come back in" in frame["error"]["message"]


@pytest.mark.parametrize("is_polite", [True, False], ids=["closing", "breaking off"])
async def test_a_client_that_leaves_takes_its_requests_with_it(client, engine, in_flight, is_polite):
    chunks, gate = held()
    engine.answers = {"streaming": chunks, "waiting": asyncio.Event()}
    await send(client, prompt="streaming")
    gate.release()
    await receive(client)
    await send(client, prompt="waiting")
    await until(lambda: len(engine.asked) == 2)
    if is_polite:
        await client.close()
    else:
        client.transport.abort()
    assert await until(lambda: in_flight.count == 0) < 1
    assert chunks.closed
    assert engine.cancelled.is_set()


async def test_an_idle_socket_is_no_work(client, in_flight):
    assert in_flight.count == 0
    assert await in_flight.wait_idle(0.1)


async def test_draining_lets_running_requests_finish_and_then_closes(client, engine, lifecycle, in_flight):
    chunks, gate = held()
    engine.answers["long"] = chunks
    await send(client, id="long", prompt="long")
    await until(lambda: in_flight.count == 1)
    lifecycle.drain("received SIGTERM")
    await send(client, id="late", prompt="long")
    frame = await receive(client)
    assert (frame["id"], frame["error"]["code"]) == ("late", 503)
    assert "draining" in frame["error"]["message"]
    for _ in range(1001):
        gate.release()
    frames = [await receive(client) for _ in range(1001)]
    assert frames[-1] == {"id": "long", "type": "done"}
    assert await closing(client) == 1012


async def test_a_request_on_an_idle_socket_while_draining_closes_it(client, lifecycle):
    lifecycle.drain("received SIGTERM")
    await send(client, id="late", prompt="hi")
    assert (await receive(client))["error"]["code"] == 503
    assert await closing(client) == 1012


async def test_the_engines_death_is_told_to_each_request_and_closes_the_socket(client, engine, lifecycle, in_flight):
    engine.answers["hi"] = NotReady("the engine has died")
    await send(client, id="a", prompt="hi")
    assert (await receive(client))["error"]["message"] == "the engine has died"
    # The server waits for requests that still tell; that the engine is dead it learns a little later than they do.
    assert in_flight.count == 1
    lifecycle.fail("the engine died")
    assert await closing(client) == 1011


async def test_a_stalled_engine_refuses_and_keeps_the_socket(client, engine, lifecycle):
    lifecycle.stall("no token")
    await send(client, id="a", prompt="hi")
    assert (await receive(client))["error"]["code"] == 503
    lifecycle.ready()
    await test_requests_after_an_error_are_answered(client, engine)


class Endless(ScriptedChunks):
    """64 KiB at a time, as fast as they are taken."""

    def __init__(self) -> None:
        super().__init__([])
        self.taken = 0

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        self.taken += 1
        return json.dumps("x" * 65536)


async def test_a_client_that_does_not_read_is_not_written_to_without_end(url, engine, in_flight, monkeypatch):
    monkeypatch.setattr(bidirectional, "_SEND_DEADLINE_S", 1.0)
    chunks = engine.answers["hi"] = Endless()
    # A client that takes one message and then no more off its socket.
    async with connect(url, max_queue=1, close_timeout=0.1) as client:
        await send(client, prompt="hi")
        await until(lambda: chunks.taken > 5)
        await asyncio.sleep(0.5)
        taken = chunks.taken
        assert taken < 1000, "64 MiB are more than the buffers of any two sockets hold"
        assert not chunks.closed
        await until(lambda: chunks.closed)
        assert chunks.taken - taken < 10
        assert in_flight.count == 0


class TestALimitOfTheBody:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_MAX_BODY_BYTES": "100000"}

    async def test_is_one_of_a_frame(self, client, engine):
        prompt = "x" * (100_000 - len(json.dumps({"prompt": "", "stream": False})))
        engine.answers[prompt] = b"{}"
        await send(client, prompt=prompt, stream=False)
        assert [(await receive(client))["type"] for _ in range(2)] == ["chunk", "done"]
        await send(client, prompt=prompt + "x", stream=False)
        assert await closing(client) == 1009

    async def test_ends_what_runs_on_the_socket_when_it_is_passed(self, client, engine, in_flight):
        chunks, gate = held()
        engine.answers["hi"] = chunks
        await send(client, prompt="hi")
        gate.release()
        await receive(client)
        await client.send("x" * 100_001)
        gate.release()
        assert await until(lambda: in_flight.count == 0) < 1
        assert chunks.closed


class TestHandshake:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_API_KEY": "key"}

    async def refusal(self, url: str, **options) -> websockets.Response:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url, **options)
        return refused.value.response

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}])
    async def test_without_the_key_is_refused(self, url, headers):
        response = await self.refusal(url, additional_headers=headers)
        assert response.status_code == 401
        assert json.loads(response.body)["error"]["type"] == "AuthenticationError"

    async def test_with_the_key_is_accepted_and_tells_the_request_id(self, url):
        headers = {"Authorization": "Bearer key", "X-Request-Id": "trace-me"}
        async with connect(url, additional_headers=headers) as client:
            assert client.response.headers["x-request-id"] == "trace-me"

    async def test_elsewhere_finds_nothing(self, url):
        response = await self.refusal(url.replace(PATH, "/v1/realtime"), additional_headers={"Authorization": "Bearer key"})
        assert response.status_code == 404
        assert "/v1/realtime" in json.loads(response.body)["error"]["message"]


class TestWhileStarting:
    @pytest.fixture
    def lifecycle(self):
        return Lifecycle()

    async def test_the_handshake_is_asked_to_come_back(self, url):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url)
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


async def test_requests_and_the_socket_are_logged_and_no_content(url, engine, caplog):
    engine.answers = {"zyxwv": b"{}", "bad": InvalidRequest("no")}
    with caplog.at_level(logging.INFO, "tokenport.access"):
        async with connect(url, additional_headers={"X-Request-Id": "trace"}) as client:
            await send(client, prompt="zyxwv", stream=False)
            await send(client, prompt="bad")
            await until(lambda: len(caplog.records) == 2)
        await until(lambda: len(caplog.records) == 3)
    rows = [(record.method, record.path, record.status) for record in caplog.records]
    assert sorted(rows) == [("FRAME", PATH, 200), ("FRAME", PATH, 400), ("WEBSOCKET", PATH, 101)]
    assert [asked[2] for asked in engine.asked] == ["trace-1", "trace-2"]
    assert "zyxwv" not in caplog.text
