"""Many requests at once over real sockets, while tiers fail and clients leave at every point: one answer each, nothing left behind."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator

import pytest
from aiohttp import web

from serving.cascade.answers import Answers, Rules
from serving.cascade.asked import Asked
from serving.cascade.chain import Limits
from serving.cascade.config import Price
from serving.cascade.openai_model import OpenAIModel
from serving.cascade.sticky import Sticky
from serving.engine.work import Scope, Work, current_scope
from serving.errors import TierFailure
from tests.conftest import free_port
from tests.unit.cascade.scripted import ERROR, SURE, UNSURE, chunk, end, policy, tier

NAMES = ("small", "large")
NUM_TOKENS = 5
NUM_REQUESTS = 120
WAYS = ("sure", "unsure", "busy", "breaks at once", "breaks", "tells an error", "stalls", "is slow")
PATIENCE_S = (None, 0.0, 0.02, 0.1, 0.3)
"""After how long clients leave."""


class Server:
    """Does with each request what its message says for the server's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.idle = asyncio.Event()
        self._num_open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        way = json.loads((await request.json())["messages"][0]["content"])[self.name]
        self._num_open += 1
        self.idle.clear()
        try:
            return web.json_response({}, status=503) if way == "busy" else await self._stream(request, way)
        finally:
            self._num_open -= 1
            if not self._num_open:
                self.idle.set()

    async def _stream(self, request: web.Request, way: str) -> web.StreamResponse:
        response = web.StreamResponse()
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            for text in self._texts(way):
                if text == "wait":
                    await asyncio.sleep(60 if way == "stalls" else 0.02)
                elif text == "break":
                    request.transport.abort()
                    break
                else:
                    await response.write(f"data: {text}\n\n".encode())
        return response

    def _texts(self, way: str) -> Iterator[str]:
        if way == "breaks at once":
            yield "break"
        for number in range(NUM_TOKENS):
            if number == 3:
                yield from {"breaks": ["break"], "tells an error": [ERROR], "stalls": ["wait"]}.get(way, [])
            if way == "is slow":
                yield "wait"
            yield chunk(f"{self.name}{number} ", UNSURE if way == "unsure" else SURE)
        yield json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield end(10, NUM_TOKENS)
        yield "[DONE]"


@pytest.fixture
async def servers():
    app = web.Application()
    found = [Server(name) for name in NAMES]
    for server in found:
        app.router.add_post(f"/{server.name}/chat/completions", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    models = [OpenAIModel(f"the tier {name}", f"http://127.0.0.1:{port}/{name}", "m") for name in NAMES]
    yield found, models
    for model in models:
        await model.close()
    await runner.cleanup()


async def seen(answers: Answers, ways: dict[str, str]) -> list[dict]:
    """The chunks that the client gets; closed however it ends, as the server does."""
    body = {"messages": [{"role": "user", "content": json.dumps(ways)}], "stream": True}
    current_scope.set(Scope())
    given = await answers.answer(Asked("chat", body), "auto", "r")
    try:
        return [json.loads(text) async for text in given]
    finally:
        await given.aclose()


async def patiently(asking, patience_s: float | None):
    """What came of it; None for who left."""
    task = asyncio.ensure_future(asking)
    await asyncio.wait((task,), timeout=patience_s)
    if not task.done():
        task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return None if isinstance(result, asyncio.CancelledError) else result


def check_is_one_answer(chunks: list[dict]) -> None:
    """One tier's words from the first on without a gap, then the end or an error."""
    words = "".join(choice["delta"].get("content", "") for chunk in chunks[:-1] for choice in chunk["choices"]).split()
    name = words[0].rstrip("0") if words else ""
    assert words == [f"{name}{number}" for number in range(len(words))]
    assert "error" in chunks[-1] or (len(words) == NUM_TOKENS and chunks[-1]["choices"][0]["finish_reason"] == "stop")


async def test_each_gets_one_answer_and_nothing_is_left_behind(servers):
    found, models = servers
    tiers = [tier(name, model, price=Price(per_hour=3600.0)) for name, model in zip(NAMES, models, strict=True)]
    work = Work()
    answers = Answers(Rules(tiers, policy(), Limits(1.5, 1.5, 2, None), 3.0, None, Sticky(60.0)), work)
    chance = random.Random(7)
    asked = [({name: chance.choice(WAYS) for name in NAMES}, chance.choice(PATIENCE_S)) for _ in range(NUM_REQUESTS)]
    results = await asyncio.gather(*(patiently(seen(answers, ways), patience_s) for ways, patience_s in asked))
    assert {type(result) for result in results} == {list, TierFailure, type(None)}
    for result in results:
        if isinstance(result, list):
            check_is_one_answer(result)
    for server in found:
        await asyncio.wait_for(server.idle.wait(), 30)
    assert not work._elsewhere
    idle_usd = [each.meter.idle_usd() for each in tiers]
    await asyncio.sleep(0.01)
    assert all(each.meter.idle_usd() > usd for each, usd in zip(tiers, idle_usd, strict=True)), "a meter still runs"
