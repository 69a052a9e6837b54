"""`/invocations` between the socket and the engine: reading, telling the forms apart, framing, leaving."""

import asyncio
import json
import logging

import pytest

from serving.errors import InvalidRequest
from tests.api.conftest import ScriptedChunks

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("body", "kind"), [(CHAT, "chat"), ({"prompt": "hi"}, "completion"), ({"messages": [], "model": "", "stream": False}, "chat")]
)
async def test_openai_bodies_reach_the_engine_untouched(client, engine, body, kind):
    engine.answer = b'{"id": 1}'
    answer = await client.post("/invocations", json=body)
    assert answer.json() == {"id": 1}
    assert answer.headers["content-type"] == "application/json"
    assert engine.asked[0][:2] == (kind, body)


async def test_a_stream_is_server_sent_events_ending_in_done(client, engine):
    engine.answer = ScriptedChunks(['{"n": 1}', '{"n": 2}'])
    answer = await client.post("/invocations", json=CHAT | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == 'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'
    assert engine.answer.closed


async def test_a_stream_can_be_json_lines(client, engine):
    engine.answer = ScriptedChunks(['{"n": 1}', '{"n": 2}'])
    answer = await client.post("/invocations", json=CHAT | {"stream": True}, headers={"Accept": "application/jsonlines"})
    assert answer.headers["content-type"].startswith("application/jsonlines")
    assert answer.text == '{"n": 1}\n{"n": 2}\n'


@pytest.mark.parametrize(
    ("content", "content_type", "status", "message"),
    [
        (b"", "application/json", 400, "the body is empty: send a JSON object with one of 'messages', 'prompt', 'inputs'"),
        (b"  \n", "application/json", 400, "the body is empty"),
        (b'{"messages": [}', "application/json", 400, "the body is not JSON: Expecting value at line 1, column 15 (character 14)"),
        (b'{"prompt": "a"} x', "application/json", 400, "Extra data at line 1, column 17"),
        (b'{"prompt": NaN}', "application/json", 400, "NaN is no JSON number"),
        (b'{"prompt": "\xff"}', "application/json", 400, "the body is not UTF-8: invalid start byte at byte 12"),
        (b"[" * 100_000, "application/json", 400, "the body is nested too deeply"),
        (b"[1]", "application/json", 400, "the body is a JSON array: send an object with one of"),
        (b'"text"', "application/json", 400, "the body is a JSON string"),
        (b"null", "application/json", 400, "the body is a JSON null"),
        (b"{}", "application/json", 400, "must have exactly one of 'messages', 'prompt', 'inputs': it has no fields"),
        (b'{"text": 1}', "application/json", 400, "it has ['text']"),
        (b'{"prompt": "a", "inputs": "b"}', "application/json", 400, "it has 'prompt' and 'inputs'"),
        (b"hello", "text/plain", 415, "content type 'text/plain' is not supported: send application/json"),
        (b"a,b", "text/csv; charset=utf-8", 415, "content type 'text/csv' is not supported"),
    ],
)
async def test_a_body_that_cannot_be_read_says_what_is_wrong(client, engine, content, content_type, status, message):
    answer = await client.post("/invocations", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["code"] == status
    assert not engine.asked


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/octet-stream", "application/vnd.x+json", None])
async def test_json_may_come_under_these_content_types(client, engine, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await client.post("/invocations", content=json.dumps(CHAT), headers=headers)
    assert answer.status_code == 200


async def test_the_engines_refusal_has_its_status_and_field(client, engine):
    engine.answer = InvalidRequest("max_tokens: must be positive", param="max_tokens")
    answer = await client.post("/invocations", json=CHAT)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {"message": "max_tokens: must be positive", "type": "BadRequestError", "param": "max_tokens", "code": 400}
    }


async def test_a_fault_of_ours_is_logged_and_told_without_details(client, engine, caplog):
    engine.answer = RuntimeError("secret detail")
    answer = await client.post("/invocations", json=CHAT)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "mine"}, "mine"),
        ({"X-Amzn-SageMaker-Inference-Id": "sage"}, "sage"),
        ({"X-Request-Id": "x" * 65, "X-Amzn-SageMaker-Inference-Id": "sage"}, "sage"),
    ],
)
async def test_the_clients_request_id_is_kept(client, engine, headers, expected):
    answer = await client.post("/invocations", json=CHAT, headers=headers)
    assert answer.headers["x-request-id"] == expected
    assert engine.asked[0][2] == expected


async def test_a_request_without_an_id_gets_one(client, engine):
    first, second = [(await client.post("/invocations", json=CHAT)).headers["x-request-id"] for _ in range(2)]
    assert first != second
    assert engine.asked[0][2] == first


async def test_the_access_log_has_status_and_time_and_no_content(client, caplog):
    with caplog.at_level(logging.INFO, "tokenport.access"):
        await client.post("/invocations", json={"prompt": "a very private prompt"})
    record = caplog.records[-1]
    assert (record.method, record.path, record.status) == ("POST", "/invocations", 200)
    assert record.seconds >= 0
    assert "private" not in str(record.__dict__)


class Connection:
    """One ASGI request whose client can leave at a chosen moment."""

    def __init__(self, body: dict) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/invocations",
            "raw_path": b"/invocations",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        self._body = json.dumps(body).encode()
        self._body_sent = False
        self.leave = asyncio.Event()
        self.sent: list[dict] = []
        self.got_chunk = asyncio.Event()

    async def receive(self):
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message.get("body"):
            self.got_chunk.set()


async def test_leaving_before_the_answer_cancels_the_generation(app, engine, in_flight):
    engine.answer = asyncio.Event()
    connection = Connection(CHAT)
    running = asyncio.create_task(app(connection.scope, connection.receive, connection.send))
    await asyncio.wait_for(engine.was_asked.wait(), 1)
    assert in_flight.count == 1
    connection.leave.set()
    await asyncio.wait_for(engine.cancelled.wait(), 1)
    await asyncio.wait_for(running, 1)
    assert in_flight.count == 0


async def test_each_chunk_is_sent_when_it_exists_and_leaving_closes_the_stream(app, engine):
    gate = asyncio.Semaphore(0)
    engine.answer = ScriptedChunks(['{"n": 1}', '{"n": 2}'], gate)
    connection = Connection(CHAT | {"stream": True})
    running = asyncio.create_task(app(connection.scope, connection.receive, connection.send))
    gate.release()
    await asyncio.wait_for(connection.got_chunk.wait(), 1)
    assert [message["body"] for message in connection.sent if message.get("body")] == [b'data: {"n": 1}\n\n']
    connection.leave.set()
    await asyncio.wait_for(running, 1)
    assert engine.answer.closed
