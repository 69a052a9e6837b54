"""CloudWatch's embedded metric format: every `emf_interval_s` a line of JSON on standard output, which CloudWatch Logs turns into metrics.

What is counted elsewhere is read, from the engine's ledger of work and from vLLM's own metrics; nothing is counted here. No request leaves
a trace in it. The format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TextIO

from prometheus_client import CollectorRegistry

from serving.engine.interface import Engine
from serving.errors import RequestError
from serving.settings import Settings

_MEMORY_DEADLINE_S = 0.5
_MAX_VALUES = 100
"""The format's limit to the values of one metric in one line."""
_UNITS = {
    "OutstandingTokens": "Count",
    "RunningRequests": "Count",
    "WaitingRequests": "Count",
    "KVCacheUsage": "Percent",
    "GenerationTokensPerSecond": "Count/Second",
    "PromptTokensPerSecond": "Count/Second",
    "TimeToFirstToken": "Milliseconds",
    "DeviceMemoryUsed": "Bytes",
}
LOAD = {"RunningRequests": "vllm:num_requests_running", "WaitingRequests": "vllm:num_requests_waiting"}
KV_CACHE = "vllm:kv_cache_usage_perc"
RATES = {"GenerationTokensPerSecond": "vllm:generation_tokens_total", "PromptTokensPerSecond": "vllm:prompt_tokens_total"}
TTFT = "vllm:time_to_first_token_seconds"
_Value = float | list[float]


async def report_metrics(engine: Engine, settings: Settings, registry: CollectorRegistry, out: TextIO) -> None:
    """Write a line each interval, until cancelled; without `emf_namespace` none."""
    namespace = settings.emf_namespace
    if namespace is None:
        return
    dimension = ("ModelName", engine.model_names[0]) if settings.emf_endpoint_name is None else ("EndpointName", settings.emf_endpoint_name)
    before, before_s = _totals(registry), time.monotonic()
    while True:
        await asyncio.sleep(settings.emf_interval_s)
        now, now_s = _totals(registry), time.monotonic()
        rates, (before, before_s) = _since(before, now, now_s - before_s), (now, now_s)
        values = {"OutstandingTokens": float(engine.work.num_tokens), **_load(registry), **rates, **await _memory(engine)}
        print(emf_line(namespace, dimension, values, time.time()), file=out, flush=True)


def emf_line(namespace: str, dimension: tuple[str, str], values: Mapping[str, _Value], at_s: float) -> str:
    """The line. `dimension`: name and value. `values` by the metric's name; `at_s` since the epoch."""
    name, value = dimension
    metrics = [{"Name": metric, "Unit": _UNITS[metric]} for metric in values]
    directive = {"Namespace": namespace, "Dimensions": [[name]], "Metrics": metrics}
    return json.dumps({"_aws": {"Timestamp": int(at_s * 1000), "CloudWatchMetrics": [directive]}, name: value, **values})


def _load(registry: CollectorRegistry) -> dict[str, _Value]:
    """How full the engines are now; of the KV caches a value each."""
    samples = _samples(registry, *LOAD.values(), KV_CACHE)
    load: dict[str, _Value] = {metric: sum(samples[name]) for metric, name in LOAD.items() if name in samples}
    return load | ({"KVCacheUsage": [100 * share for share in samples[KV_CACHE]][:_MAX_VALUES]} if KV_CACHE in samples else {})


def _since(before: Mapping[str, float], now: Mapping[str, float], elapsed_s: float) -> dict[str, _Value]:
    """What happened in between. The time to the first token is the mean of those that came in it; where none came there is no such time."""
    gained = {name: value - before.get(name, 0.0) for name, value in now.items()}
    rates: dict[str, _Value] = {metric: gained[name] / elapsed_s for metric, name in RATES.items() if name in gained}
    if num_first_tokens := gained.get(f"{TTFT}_count"):
        rates["TimeToFirstToken"] = 1000 * gained[f"{TTFT}_sum"] / num_first_tokens
    return rates


async def _memory(engine: Engine) -> dict[str, _Value]:
    """What is taken of each device."""
    try:
        measured = await engine.memory(_MEMORY_DEADLINE_S)
    except RequestError:
        return {}
    return {"DeviceMemoryUsed": [float(device.total_bytes - device.free_bytes) for device in measured.devices][:_MAX_VALUES]}


def _totals(registry: CollectorRegistry) -> dict[str, float]:
    """What has been counted since the start, by all engines together."""
    samples = _samples(registry, *RATES.values(), f"{TTFT}_count", f"{TTFT}_sum")
    return {name: sum(values) for name, values in samples.items()}


def _samples(registry: CollectorRegistry, *names: str) -> dict[str, list[float]]:
    """The values of each, one an engine. With `disable_log_stats` vLLM has none of them."""
    found: dict[str, list[float]] = {}
    for family in registry.restricted_registry(names).collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.value)
    return found
