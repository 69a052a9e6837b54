"""The lines from which CloudWatch Logs makes metrics."""

import asyncio
import importlib.util
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.api import emf
from serving.api.emf import KV_CACHE, LOAD, RATES, TTFT, emf_line, report_metrics
from serving.aws.deployment.autoscaling import OUTSTANDING_TOKENS
from serving.engine.interface import DeviceMemory, Memory
from serving.errors import SettingsError
from serving.settings import load_settings

UNITS = (
    "Seconds|Microseconds|Milliseconds|Bytes|Kilobytes|Megabytes|Gigabytes|Terabytes|Bits|Kilobits|Megabits|Gigabits|Terabits|Percent|Count|"
    r"Bytes\/Second|Kilobytes\/Second|Megabytes\/Second|Gigabytes\/Second|Terabytes\/Second|Bits\/Second|Kilobits\/Second|Megabits\/Second|"
    r"Gigabits\/Second|Terabits\/Second|Count\/Second|None"
)
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": {"type": "string", "pattern": "^(.*)$", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 0,
                                    "maxItems": 30,
                                    "items": {"type": "string", "pattern": "^(.*)$", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": {"type": "string", "pattern": "^(.*)$", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"type": "string", "pattern": f"^({UNITS})$"},
                                        "StorageResolution": {"type": "integer"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
"""AWS's own, its titles and examples left out:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"""
GIB = 2**30


def device(rank: int, free_bytes: int) -> DeviceMemory:
    return DeviceMemory(rank, f"cuda:{rank}", 24 * GIB, 0, {}, 0, 0, 0, 0.0, 0, 0, 0, 0, free_bytes)


class Vllm:
    """vLLM's metrics of two engines."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = {"labelnames": ["model_name", "engine"], "registry": self.registry}
        self.gauges = {name: Gauge(name, "-", **labels) for name in (*LOAD.values(), KV_CACHE)}
        self.counters = {name: Counter(name, "-", **labels) for name in RATES.values()}
        self.ttft = Histogram(TTFT, "-", **labels)
        for metric in (*self.gauges.values(), *self.counters.values(), self.ttft):
            for engine in ("0", "1"):
                metric.labels("m", engine)

    def set(self, name: str, *values: float) -> None:
        for engine, value in enumerate(values):
            self.gauges[name].labels("m", str(engine)).set(value)

    def count(self, name: str, *values: float) -> None:
        for engine, value in enumerate(values):
            self.counters[name].labels("m", str(engine)).inc(value)


@pytest.fixture
def vllm() -> Vllm:
    return Vllm()


@pytest.fixture
def lines(engine, vllm, monkeypatch):
    """Lines as they would be written, whole intervals of 10 s in no time; `between` is what happens in each."""
    now_s = 1000.0

    async def written(*between, registry=vllm.registry, **environ: str) -> list[dict]:
        nonlocal now_s
        out, steps, done = io.StringIO(), iter(between), asyncio.Event()

        async def sleep(seconds: float) -> None:
            nonlocal now_s
            now_s += seconds
            step = next(steps, None)
            if step is None:
                done.set()
                await asyncio.Event().wait()
            else:
                step()

        monkeypatch.setattr(emf, "asyncio", SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(emf, "time", SimpleNamespace(monotonic=lambda: now_s, time=time.time))
        settings = load_settings([], {"TOKENPORT_EMF_NAMESPACE": "Tokenport", **environ})
        reporting = asyncio.create_task(report_metrics(engine, settings, registry, out))
        await asyncio.wait_for(done.wait(), 10)
        reporting.cancel()
        found = [json.loads(line) for line in out.getvalue().splitlines()]
        for line in found:
            check(line)
        return found

    return written


def check(line: dict) -> None:
    """The schema, and what the specification says besides: each metric is a number or up to 100, each dimension a text, at the root."""
    jsonschema.validate(line, SCHEMA)
    [directive] = line["_aws"]["CloudWatchMetrics"]
    for metric in directive["Metrics"]:
        value = line[metric["Name"]]
        values = value if isinstance(value, list) else [value]
        assert 0 < len(values) <= 100
        assert all(type(number) in (int, float) for number in values)
    assert all(isinstance(line[name], str) for dimensions in directive["Dimensions"] for name in dimensions)


def nothing() -> None:
    pass


async def test_a_line_has_load_rates_and_memory(lines, engine, vllm):
    engine.work.begin(100, 50, lambda: None)
    engine.measured = Memory((device(0, 4 * GIB), device(1, 6 * GIB)), 0.0)
    vllm.set(LOAD["RunningRequests"], 2, 3)
    vllm.set(LOAD["WaitingRequests"], 0, 1)
    vllm.set(KV_CACHE, 0.25, 0.5)

    def generate():
        vllm.count(RATES["GenerationTokensPerSecond"], 300, 200)
        vllm.count(RATES["PromptTokensPerSecond"], 1000, 0)
        vllm.ttft.labels("m", "0").observe(0.2)
        vllm.ttft.labels("m", "1").observe(0.4)

    [line] = await lines(generate)
    assert {name: value for name, value in line.items() if name != "_aws"} == {
        "ModelName": "scripted",
        "OutstandingTokens": 150,
        "RunningRequests": 5,
        "WaitingRequests": 1,
        "KVCacheUsage": [25, 50],
        "GenerationTokensPerSecond": 50,
        "PromptTokensPerSecond": 100,
        "TimeToFirstToken": pytest.approx(300),
        "DeviceMemoryUsed": [20 * GIB, 18 * GIB],
    }


async def test_rates_are_of_their_interval_alone(lines, vllm):
    vllm.count(RATES["GenerationTokensPerSecond"], 1_000_000)
    vllm.ttft.labels("m", "0").observe(60)
    tokens = RATES["GenerationTokensPerSecond"]
    found = await lines(lambda: vllm.count(tokens, 100), nothing, lambda: vllm.ttft.labels("m", "0").observe(1))
    assert [line["GenerationTokensPerSecond"] for line in found] == [10, 0, 0]
    assert ["TimeToFirstToken" in line for line in found] == [False, False, True]
    assert found[2]["TimeToFirstToken"] == pytest.approx(1000)


async def test_what_is_not_known_is_left_out(lines):
    [line] = await lines(nothing, registry=CollectorRegistry())
    assert set(line) == {"_aws", "ModelName", "OutstandingTokens"}


async def test_an_endpoint_is_the_dimension_where_it_is_known(lines):
    [line] = await lines(nothing, TOKENPORT_EMF_ENDPOINT_NAME="chat")
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"], line["EndpointName"]) == ("Tokenport", [["EndpointName"]], "chat")


async def test_what_deployments_scale_by_is_in_it(lines):
    [line] = await lines(nothing)
    assert OUTSTANDING_TOKENS in line


async def test_without_a_namespace_nothing_is_written(engine, vllm):
    out = io.StringIO()
    await report_metrics(engine, load_settings([], {}), vllm.registry, out)
    assert out.getvalue() == ""


def test_the_time_is_in_milliseconds():
    line = json.loads(emf_line("Tokenport", ("ModelName", "m"), {}, 1574109732.004))
    assert line["_aws"]["Timestamp"] == 1574109732004


def test_vllm_has_these_metrics():
    spec = importlib.util.find_spec("vllm")
    source = (Path(spec.submodule_search_locations[0]) / "v1/metrics/loggers.py").read_text()
    for name in (*LOAD.values(), KV_CACHE, *RATES.values(), TTFT):
        assert f'name="{name.removesuffix("_total")}"' in source


@pytest.mark.parametrize("namespace", ["AWS/SageMaker", ":a", "a" * 256, "größe", "a\nb"])
def test_a_namespace_that_cloudwatch_refuses_stops_the_start(namespace):
    with pytest.raises(SettingsError, match="EMF_NAMESPACE"):
        load_settings([], {"TOKENPORT_EMF_NAMESPACE": namespace})


@pytest.mark.parametrize("name", ["TOKENPORT_EMF_INTERVAL_S", "TOKENPORT_EMF_ENDPOINT_NAME"])
def test_settings_of_metrics_that_nobody_asked_for_stop_the_start(name):
    with pytest.raises(SettingsError, match="emf_namespace"):
        load_settings([], {name: "10"})
