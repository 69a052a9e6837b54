"""Batches of JSON lines on `/invocations`, and what batch transform is told of them."""

import asyncio
import json

import pytest

from serving.api.execution_parameters import limits
from serving.errors import InvalidRequest, NotReady
from tests.api.conftest import ScriptedEngine

LINES = {"Content-Type": "application/jsonlines"}


class EchoingEngine(ScriptedEngine):
    """Answers a prompt with itself, later ones sooner; of some it makes errors."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.most_running = 0
        self.delay_s = 0.0
        self.hold: asyncio.Event | None = None
        self.num_cancelled = 0
        self.is_full = asyncio.Event()

    async def generate(self, kind, body, request_id):
        self.asked.append((kind, body, request_id))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if self.running == self.capacity.num_sequences:
            self.is_full.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(self.delay_s / len(self.asked))
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.running -= 1
        match body["prompt"]:
            case "bad":
                raise InvalidRequest("temperature: too hot", param="temperature")
            case "dead":
                raise NotReady("the engine has died")
            case "fault":
                raise RuntimeError("secret")
        return json.dumps({"echo": body["prompt"]}, ensure_ascii=False).encode()


@pytest.fixture
def engine() -> EchoingEngine:
    return EchoingEngine()


def lines_of(*prompts: str) -> bytes:
    return b"\n".join(json.dumps({"prompt": prompt}).encode() for prompt in prompts)


def results(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jsonlines"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content.endswith(b"\n")
    return [json.loads(line) for line in answer.content.split(b"\n")[:-1]]


def errors(answer) -> list[tuple[int, str] | None]:
    found = (result.get("error") for result in results(answer))
    return [error and (error["code"], error["message"]) for error in found]


@pytest.mark.parametrize("media_type", ["application/jsonlines", "application/x-ndjson", "application/jsonl", "Application/JSONLines; a=b"])
@pytest.mark.parametrize("accept", [None, "application/jsonlines", "application/json", "*/*"])
async def test_each_line_is_answered_in_order(client, engine, media_type, accept):
    engine.delay_s = 0.05
    prompts = ["one", "zwei ü", "three"]
    headers = {"Content-Type": media_type} | ({"Accept": accept} if accept else {})
    answer = await client.post("/invocations", content=lines_of(*prompts), headers=headers)
    assert results(answer) == [{"echo": prompt} for prompt in prompts]


async def test_lines_may_have_different_forms_and_ids_of_their_own(client, engine):
    engine.generate = ScriptedEngine.generate.__get__(engine)
    engine.answer = b'{"choices": [{"text": "x", "finish_reason": "stop"}]}'
    content = b'{"prompt": "a"}\n{"messages": []}\n{"inputs": "b"}'
    answer = await client.post("/invocations", content=content, headers=LINES | {"X-Request-Id": "trace"})
    assert results(answer)[2] == {"generated_text": "x"}
    asked = [(kind, request_id) for kind, _, request_id in engine.asked]
    assert asked == [
        ("completion", "trace-0"),
        ("chat", "trace-1"),
        ("completion", "trace-2"),
    ]


async def test_an_error_on_a_line_leaves_the_others(client, engine, caplog):
    content = b"\n".join(
        [
            lines_of("fine", "bad"),
            b"{",
            b"[1]",
            b'{"prompt": "\xff"}',
            b'{"prompt": "x", "stream": true}',
            b'{"hello": 1}',
            b'{"prompt": ' + b"[" * 100_000,
            b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
            lines_of("dead", "fault", "fine"),
        ]
    )
    found = errors(await client.post("/invocations", content=content, headers=LINES))
    expected = [None, (400, "too hot"), (400, "not JSON"), (400, "array"), (400, "not UTF-8"), (400, "stream"), (400, "exactly one of")]
    expected += [(400, "nested too deeply"), (400, "digits"), (503, "has died"), (500, "internal error"), None]
    assert len(found) == len(expected)
    for error, wanted in zip(found, expected, strict=True):
        assert (error is None) == (wanted is None)
        if error and wanted:
            assert error[0] == wanted[0]
            assert wanted[1] in error[1]
    assert [asked[1]["prompt"] for asked in engine.asked] == ["fine", "bad", "dead", "fault", "fine"]
    assert "line 11 of a batch" in caplog.text


@pytest.mark.parametrize("content", [b'\n\n{"prompt": "a"}\n  \n\r\n{"prompt": "b"}\n\n', b'{"prompt": "a"}\r\n{"prompt": "b"}\r\n'])
async def test_blank_lines_have_no_result(client, content):
    assert results(await client.post("/invocations", content=content, headers=LINES)) == [{"echo": "a"}, {"echo": "b"}]


async def test_a_separator_that_is_no_newline_ends_no_line(client):
    content = '{"prompt": "a\u2028b\u0085c"}'.encode()
    assert results(await client.post("/invocations", content=content, headers=LINES)) == [{"echo": "a\u2028b\u0085c"}]


async def test_a_batch_of_one(client):
    assert results(await client.post("/invocations", content=lines_of("only"), headers=LINES)) == [{"echo": "only"}]


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n\n"])
async def test_a_batch_without_a_line_is_refused(client, content):
    answer = await client.post("/invocations", content=content, headers=LINES)
    assert answer.status_code == 400
    assert "the batch is empty" in answer.json()["error"]["message"]


async def test_ten_thousand_lines(client, engine):
    prompts = [str(number) for number in range(10_000)]
    answer = await client.post("/invocations", content=lines_of(*prompts), headers=LINES)
    assert [result["echo"] for result in results(answer)] == prompts


async def test_more_lines_than_the_limit_are_refused(client, engine):
    answer = await client.post("/invocations", content=b"\n" * 100_001, headers=LINES)
    assert answer.status_code == 400
    assert "100000" in answer.json()["error"]["message"]


async def test_a_huge_line(client):
    prompt = "x" * 5_000_000
    assert results(await client.post("/invocations", content=lines_of(prompt, "y"), headers=LINES)) == [{"echo": prompt}, {"echo": "y"}]


async def test_no_more_lines_run_at_once_than_the_engine_runs_together(client, engine):
    engine.delay_s = 0.01
    await client.post("/invocations", content=lines_of(*("x" * 20)), headers=LINES)
    assert engine.most_running == engine.capacity.num_sequences


async def test_lines_that_are_refused_do_not_hold_up_others(client):
    batch = asyncio.create_task(client.post("/invocations", content=b"{\n" * 20_000, headers=LINES))
    await asyncio.sleep(0)
    num_pings = 0
    while not batch.done():
        assert (await client.get("/ping")).status_code == 200
        num_pings += 1
        await asyncio.sleep(0.02)
    assert len(results(await batch)) == 20_000
    assert num_pings > 5


async def test_a_client_that_leaves_aborts_every_line(app, engine):
    engine.hold = asyncio.Event()
    messages = [{"type": "http.request", "body": lines_of(*"abcdef"), "more_body": False}]
    gone = asyncio.Event()

    async def receive():
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    headers = [(b"content-type", b"application/jsonlines")]
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers, "query_string": b"", "http_version": "1.1"}
    serving = asyncio.create_task(app(scope, receive, send))
    await asyncio.wait_for(engine.is_full.wait(), 5)
    gone.set()
    await asyncio.wait_for(serving, 5)
    assert engine.running == 0
    assert engine.num_cancelled == len(engine.asked) == engine.capacity.num_sequences


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream", "image/png"])
async def test_an_accept_without_json_lines_is_refused(client, engine, accept):
    answer = await client.post("/invocations", content=lines_of("a"), headers=LINES | {"Accept": accept})
    assert answer.status_code == 406
    assert not engine.asked


async def test_execution_parameters_are_what_the_settings_allow(client):
    answer = await client.get("/execution-parameters")
    assert answer.json() == {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 25}


@pytest.mark.parametrize(
    ("max_body_bytes", "payload_mb", "transforms"),
    [(1, 1, 100), (6_291_456, 6, 16), (25_000_000, 23, 4), (60 * 2**20, 60, 1), (2**30, 100, 1)],
)
def test_concurrent_transforms_times_payload_stay_within_the_platforms_limit(max_body_bytes, payload_mb, transforms):
    found = limits(max_body_bytes)
    assert (found["MaxPayloadInMB"], found["MaxConcurrentTransforms"]) == (payload_mb, transforms)


@pytest.mark.parametrize("path", ["/models", "/models/x", "/models/x/invoke"])
async def test_there_is_no_multi_model_api(client, path):
    answer = await client.post(path, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"there is no route POST {path}"
