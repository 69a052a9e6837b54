"""The queue, the limits of a body, and what is told to whom finds no place."""

import asyncio

import httpx
import pytest

from serving.engine.work import Work
from serving.errors import NotReady

BODY = {"prompt": "x"}


@pytest.fixture
def environ() -> dict[str, str]:
    # The scripted engine runs 4 at once and holds 1000 tokens.
    return {"TOKENPORT_MAX_QUEUE": "2", "TOKENPORT_MAX_QUEUE_TOKENS": "500", "TOKENPORT_MAX_BODY_BYTES": "1000"}


async def post_many(client: httpx.AsyncClient, number: int, path: str = "/invocations") -> list[asyncio.Task[httpx.Response]]:
    tasks = [asyncio.create_task(client.post(path, json=BODY)) for _ in range(number)]
    await asyncio.sleep(0.1)
    return tasks


async def test_as_many_wait_as_may_and_the_next_is_told_when_to_come_back(client, engine):
    engine.answer = asyncio.Event()
    admitted = await post_many(client, 6)
    refused = await client.post("/invocations", json=BODY)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "no more than 2 may wait (max_queue)" in refused.json()["error"]["message"]
    assert not any(task.done() for task in admitted)
    engine.answer.set()
    engine.answer = b"{}"
    await asyncio.gather(*admitted, return_exceptions=True)
    assert (await client.post("/invocations", json=BODY)).status_code == 200


async def test_the_openai_routes_share_the_queue(client, engine):
    engine.answer = asyncio.Event()
    admitted = await post_many(client, 6)
    assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 429
    assert (await client.post("/tokenize", json=BODY)).status_code == 200
    assert (await client.get("/v1/models")).status_code == 200
    for task in admitted:
        task.cancel()


async def test_too_many_tokens_are_refused_too(client, engine):
    engine.answer = b"{}"
    tickets = [engine.work.begin(400, 100, lambda: None) for _ in range(3)]  # 1500: what it holds and what may wait
    assert (await client.post("/invocations", json=BODY)).status_code == 200
    engine.work.begin(1, 1, lambda: None)
    refused = await client.post("/invocations", json=BODY)
    assert refused.status_code == 429
    assert "502 tokens wait, and no more than 500 may (max_queue_tokens)" in refused.json()["error"]["message"]
    engine.work.end(tickets[0])
    assert (await client.post("/invocations", json=BODY)).status_code == 200


async def test_the_wait_is_the_measured_one(client, engine):
    now = 0.0
    engine.work = Work(lambda: now)
    engine.work.begin(4000, 0, lambda: None)
    for _ in range(20):
        now += 1
        engine.work.step(100)  # tokens a second
    refused = await client.post("/invocations", json=BODY)
    # Of 4000 tokens 1000 are held: the 3000 that wait take 30 s.
    assert refused.headers["retry-after"] == "30"


async def test_a_503_of_the_engine_says_when_to_come_back(client, engine):
    engine.answer = NotReady("the deadline passed")
    refused = await client.post("/invocations", json=BODY)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1


async def test_probes_need_no_place(client, engine):
    engine.answer = asyncio.Event()
    admitted = await post_many(client, 6)
    assert (await client.get("/ping")).status_code == 200
    for task in admitted:
        task.cancel()


@pytest.mark.parametrize("path", ["/invocations", "/v1/completions", "/tokenize", "/anything"])
async def test_a_body_over_the_limit_is_refused_on_every_route(client, engine, path):
    refused = await client.post(path, content=b"x" * 1001, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413
    assert "1001 bytes, and no more than 1000" in refused.json()["error"]["message"]
    assert engine.asked == []


async def test_a_body_in_pieces_is_counted(client, engine):
    async def pieces():
        for _ in range(11):
            yield b"x" * 100

    refused = await client.post("/invocations", content=pieces(), headers={"Content-Type": "application/json"})
    assert refused.status_code == 413
    assert engine.asked == []


async def test_a_body_of_the_limit_enters(client, engine):
    body = b'{"prompt": "' + b"x" * (1000 - 14) + b'"}'
    assert len(body) == 1000
    assert (await client.post("/invocations", content=body, headers={"Content-Type": "application/json"})).status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr("serving.api.body_limit._DEADLINE_S", 0.05)

    async def never():
        yield b"{"
        await asyncio.sleep(5)

    refused = await client.post("/invocations", content=never(), headers={"Content-Type": "application/json"})
    assert refused.status_code == 408
    assert "did not arrive" in refused.json()["error"]["message"]
