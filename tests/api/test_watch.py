"""When the engine counts as standing still, with an engine whose steps the test makes."""

import asyncio

import pytest

from serving.api.lifecycle import State
from serving.api.watch import watch

STALL_S = 0.2


@pytest.fixture
async def watching(engine, lifecycle):
    task = asyncio.create_task(watch(engine, lifecycle, STALL_S))
    yield task
    task.cancel()


async def until(lifecycle, state: State) -> None:
    async with asyncio.timeout(5):
        while lifecycle.state is not state:  # noqa: ASYNC110 - a state machine has no events
            await asyncio.sleep(0.01)


async def test_idle_is_ready(watching, lifecycle):
    await asyncio.sleep(2 * STALL_S)
    assert lifecycle.is_ready


async def test_load_that_gets_on_is_ready(watching, engine, lifecycle):
    engine.work.begin(100_000, 1000, lambda: None)
    for _ in range(20):
        await asyncio.sleep(STALL_S / 10)
        engine.work.step(0)
        assert lifecycle.is_ready


async def test_a_standstill_is_told_and_ends_with_a_step(watching, engine, lifecycle, client):
    engine.work.begin(1, 1, lambda: None)
    await until(lifecycle, State.STALLED)
    ping = await client.get("/ping")
    assert (ping.status_code, ping.json()["status"]) == (503, "stalled")
    assert "no token for" in ping.json()["reason"]
    refused = await client.post("/invocations", json={"prompt": "x"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    engine.work.step(1)
    await until(lifecycle, State.READY)


async def test_when_every_client_has_given_up_a_probe_keeps_asking(watching, engine, lifecycle):
    engine.work.end(engine.work.begin(1, 1, lambda: None))
    await until(lifecycle, State.STALLED)
    assert engine.num_probes == 1
    engine.work.step(1)
    await until(lifecycle, State.READY)


async def test_a_draining_server_is_not_called_stalled(watching, engine, lifecycle):
    lifecycle.drain("received SIGTERM")
    engine.work.begin(1, 1, lambda: None)
    await asyncio.sleep(2 * STALL_S)
    assert lifecycle.state is State.DRAINING
