"""`GET /memory`, its gauges and the lines in the log, around a scripted engine."""

import logging
from dataclasses import replace

import pytest

from serving.api.lifecycle import Lifecycle
from serving.api.memory import in_words, log_start
from serving.engine.interface import DeviceMemory, Memory, Planned
from serving.errors import NotReady
from serving.planner.interval import Interval, exactly

GIB = 2**30
DEVICE = DeviceMemory(
    rank=1,
    device="cuda:1",
    total_bytes=24 * GIB,
    weights_bytes=8 * GIB,
    weights_by_dtype={"int8": 6 * GIB, "bfloat16": 2 * GIB},
    kv_cache_bytes=8 * GIB,
    kv_cache_blocks=4096,
    kv_cache_tokens=65536,
    kv_cache_sequences=8.0,
    activation_peak_bytes=2 * GIB,
    cuda_graph_bytes=GIB,
    non_torch_bytes=GIB,
    other_bytes=GIB,
    free_bytes=3 * GIB,
)


PLANNED = Planned(
    parts={
        "weights": exactly(8 * GIB),
        "kv_cache": Interval(7 * GIB, 6 * GIB, 9 * GIB),
        "activation_peak": Interval(2 * GIB, GIB, 3 * GIB),
        "cuda_graph": exactly(0),
        "non_torch": exactly(GIB),
    },
    kv_bytes_per_token=131072,
    assumed=("a thing that nobody told",),
)


@pytest.fixture
def lifecycle() -> Lifecycle:
    times = iter([10.0, 12.0, 15.5])
    lifecycle = Lifecycle(age_s=1.0, clock=lambda: next(times))
    lifecycle.progress("importing")
    lifecycle.ready()
    return lifecycle


@pytest.fixture
def engine(engine):
    engine.measured = Memory((DEVICE,), as_of_s=0.25)
    return engine


async def test_the_memory_has_a_device_a_rank_and_the_phases_of_the_start(client):
    answer = await client.get("/memory")
    assert answer.status_code == 200
    body = answer.json()
    assert body["start_up_s"] == {"starting": 3.0, "importing": 3.5}
    assert body["as_of_s"] == 0.25
    (device,) = body["devices"]
    assert {
        "rank",
        "device",
        "total_bytes",
        "weights_bytes",
        "weights_by_dtype",
        "kv_cache_bytes",
        "kv_cache_tokens",
        "activation_peak_bytes",
        "cuda_graph_bytes",
        "non_torch_bytes",
        "other_bytes",
        "free_bytes",
    } <= device.keys()
    assert (device["rank"], device["weights_by_dtype"]) == (1, {"int8": 6 * GIB, "bfloat16": 2 * GIB})


async def test_what_was_planned_stands_beside_what_was_measured(client, engine):
    assert (await client.get("/memory")).json()["planned"] is None
    engine.measured = Memory((DEVICE,), 0.0, PLANNED)
    planned = (await client.get("/memory")).json()["planned"]
    assert planned["kv_cache_bytes"] == {"estimate": 7 * GIB, "low": 6 * GIB, "high": 9 * GIB}
    assert planned["kv_bytes_per_token"] == 131072
    assert planned["assumed"] == ["a thing that nobody told"]
    metrics = (await client.get("/metrics")).text
    assert 'tokenport_memory_planned_bytes{bound="low",kind="kv_cache"} 6.442450944e+09' in metrics
    assert 'tokenport_memory_planned_bytes{bound="estimate",kind="weights"} 8.589934592e+09' in metrics


async def test_a_model_that_is_not_planned_has_no_plan_and_no_gauges_of_one(client, engine):
    engine.measured = Memory((DEVICE,), 0.0, Planned(reason="an architecture that is not known"))
    assert (await client.get("/memory")).json()["planned"] is None
    assert "tokenport_memory_planned_bytes{" not in (await client.get("/metrics")).text


async def test_what_has_not_been_measured_is_503(client, engine):
    engine.measured = NotReady("the engine has not measured its memory yet")
    answer = await client.get("/memory")
    assert answer.status_code == 503
    assert "not measured" in answer.json()["error"]["message"]


async def test_the_gauges_are_refreshed_at_each_scrape(client, engine):
    text = (await client.get("/metrics")).text
    assert 'tokenport_memory_bytes{device="cuda:1",kind="kv_cache",rank="1"} 8.589934592e+09' in text
    assert 'tokenport_start_up_seconds{phase="importing"} 3.5' in text
    engine.measured = Memory((), as_of_s=0.0)
    text = (await client.get("/metrics")).text
    assert "tokenport_memory_bytes{" not in text
    assert 'tokenport_start_up_seconds{phase="importing"} 3.5' in text


async def test_metrics_are_given_without_an_answer_of_the_engine(client, engine):
    engine.measured = NotReady("busy")
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "tokenport_start_up_seconds" in answer.text


async def test_the_document_describes_the_memory(client):
    document = (await client.get("/openapi.json")).json()
    schema = document["paths"]["/memory"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/MemoryReport"}
    assert "free_bytes" in document["components"]["schemas"]["DeviceReport"]["properties"]


async def test_the_log_tells_the_phases_and_a_line_a_rank(engine, lifecycle, caplog):
    caplog.set_level(logging.INFO, "tokenport")
    await log_start(engine, lifecycle)
    start, memory = caplog.messages
    assert start == "start-up took 6.5 s: starting 3.0, importing 3.5"
    assert memory.startswith("memory of rank 1 on cuda:1: weights 8.00 (int8, bfloat16) + kv cache 8.00 (65536 tokens) + ")
    assert in_words(DEVICE).endswith("free 3.00 = 24.00 GiB")


async def test_the_log_tells_the_plan_and_the_measurement_of_each_part_in_one_line(engine, lifecycle, caplog):
    caplog.set_level(logging.INFO, "tokenport")
    engine.measured = Memory((replace(DEVICE, rank=0, weights_bytes=GIB), DEVICE), 0.0, PLANNED)
    await log_start(engine, lifecycle)
    (line,) = [record for record in caplog.records if record.message == "memory: planned and measured"]
    assert line.planned["kv_cache"] == {"estimate": 7 * GIB, "low": 6 * GIB, "high": 9 * GIB}
    assert line.measured == {"weights": 8 * GIB, "kv_cache": 8 * GIB, "activation_peak": 2 * GIB, "cuda_graph": GIB, "non_torch": GIB}
    assert line.reason is None


async def test_the_log_tells_why_there_is_no_plan(engine, lifecycle, caplog):
    caplog.set_level(logging.INFO, "tokenport")
    engine.measured = Memory((DEVICE,), 0.0, Planned(reason="an architecture that is not known"))
    await log_start(engine, lifecycle)
    (line,) = [record for record in caplog.records if record.message == "memory: planned and measured"]
    assert (line.planned, line.reason) == ({}, "an architecture that is not known")


class TestBehindTheGate:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_API_KEY": "k1"}

    async def test_the_memory_asks_for_a_key(self, client):
        assert (await client.get("/memory")).status_code == 401
        assert (await client.get("/memory", headers={"Authorization": "Bearer k1"})).status_code == 200


class TestWhileLoading:
    @pytest.fixture
    def lifecycle(self) -> Lifecycle:
        return Lifecycle()

    async def test_the_memory_is_503(self, client):
        assert (await client.get("/memory")).status_code == 503

    async def test_metrics_do_not_ask_the_engine(self, client):
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert "tokenport_memory_bytes{" not in answer.text
