"""`GET /memory`: where every byte of each device is and how long each phase of start-up took; the same for Prometheus and for the log."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from fastapi import Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from serving.api.lifecycle import Lifecycle
from serving.engine.interface import DeviceMemory, Engine, Memory, Planned
from serving.errors import RequestError

logger = logging.getLogger("tokenport.memory")

_DEADLINE_S = 2.0
_SCRAPE_DEADLINE_S = 0.5
"""Prometheus gives up after 10 s by default, and has the rest of the metrics to get in the same request."""
_KINDS = ("total", "weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free")
_PLANNED_KINDS = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch")
_ENDS = ("estimate", "low", "high")
_GIB = 2**30


class DeviceReport(BaseModel):
    """One rank's device. The parts, from `weights_bytes` (once) to `free_bytes`, add up to `total_bytes`."""

    rank: int
    device: str = Field(description="`cuda:0`, or `cpu` for the machine's memory, which ranks share")
    total_bytes: int = Field(description="What the engine could use: the GPU's memory; the machine's, or the container's limit")
    weights_bytes: int = Field(description="The model in memory, each tensor once")
    weights_by_dtype: Mapping[str, int]
    kv_cache_bytes: int
    kv_cache_blocks: int
    kv_cache_tokens: int = Field(description="Of sequences at full context, as vLLM counts them")
    kv_cache_sequences: float = Field(description="How many sequences at full context it holds")
    activation_peak_bytes: int = Field(description="The most that steps have needed beyond what stays; kept out of `free_bytes`")
    cuda_graph_bytes: int
    non_torch_bytes: int = Field(description="The rest of the process: context, NCCL, libraries, kernels' copies of weights")
    other_bytes: int = Field(description="Other processes; on the CPU the HTTP server's and other ranks' too")
    free_bytes: int = Field(description="What stays free even at the activation peak")


class PlannedBytes(BaseModel):
    """What was expected, and the two ends that it was expected to lie between."""

    estimate: int
    low: int
    high: int


class PlannedReport(BaseModel):
    """What `tokenport plan` says of the rank that holds the most, made before the start for the model, sizes and device of this server."""

    weights_bytes: PlannedBytes
    kv_cache_bytes: PlannedBytes
    activation_peak_bytes: PlannedBytes
    cuda_graph_bytes: PlannedBytes
    non_torch_bytes: PlannedBytes
    kv_bytes_per_token: int = Field(description="Over all ranks of a replica")
    assumed: list[str]


class MemoryReport(BaseModel):
    """All ranks."""

    devices: list[DeviceReport]
    planned: PlannedReport | None = Field(description="null where this model is not planned; why not is in the log")
    start_up_s: dict[str, float] = Field(description="Seconds of each phase from the process's start to ready, in order")
    as_of_s: float = Field(description="Age of the measurement: a busy engine answers between two steps, or later than can be waited for")


async def memory(request: Request) -> MemoryReport:
    """Where every byte of each device is, and how long each phase of start-up took."""
    engine: Engine = request.app.state.engine
    measured = await engine.memory(_DEADLINE_S)
    devices = [DeviceReport(**asdict(device)) for device in measured.devices]
    start_up_s = {phase: round(seconds, 3) for phase, seconds in request.app.state.lifecycle.start_up_s.items()}
    return MemoryReport(devices=devices, planned=_report(measured.planned), start_up_s=start_up_s, as_of_s=round(measured.as_of_s, 3))


def _report(planned: Planned | None) -> PlannedReport | None:
    if planned is None or planned.kv_bytes_per_token is None:
        return None
    parts = {f"{kind}_bytes": PlannedBytes(**ends) for kind, ends in _planned_figures(planned).items()}
    return PlannedReport(**parts, kv_bytes_per_token=planned.kv_bytes_per_token, assumed=list(planned.assumed))


async def memory_metrics(engine: Engine, lifecycle: Lifecycle) -> bytes:
    """The same as gauges, in Prometheus's text format. Before the engine is up, and when it does not answer, without the bytes."""
    measured = None
    if lifecycle.is_ready:
        try:
            measured = await engine.memory(_SCRAPE_DEADLINE_S)
        except RequestError as error:
            logger.debug("no memory in the metrics", extra={"reason": error.message})
    registry = CollectorRegistry()
    registry.register(_Figures(measured, lifecycle.start_up_s))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, measured: Memory | None, start_up_s: Mapping[str, float]) -> None:
        self._devices = measured.devices if measured else ()
        self._planned = _planned_figures(measured.planned) if measured and measured.planned else {}
        self._start_up_s = start_up_s

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sizes = GaugeMetricFamily("tokenport_memory_bytes", "Where the memory of each rank's device is", labels=["device", "rank", "kind"])
        for device in self._devices:
            for kind in _KINDS:
                sizes.add_metric([device.device, str(device.rank), kind], getattr(device, f"{kind}_bytes"))
        planned = GaugeMetricFamily(
            "tokenport_memory_planned_bytes", "What was planned for the rank that holds the most", labels=["kind", "bound"]
        )
        for kind, ends in self._planned.items():
            for bound, num_bytes in ends.items():
                planned.add_metric([kind, bound], num_bytes)
        phases = GaugeMetricFamily("tokenport_start_up_seconds", "How long each phase of the start took", labels=["phase"])
        for phase, seconds in self._start_up_s.items():
            phases.add_metric([phase], seconds)
        yield from (sizes, planned, phases)


async def log_start(engine: Engine, lifecycle: Lifecycle) -> None:
    """What the start took and what it made of the memory, once: a line for the phases, one for each rank, one with what was planned."""
    phases = {phase: round(seconds, 2) for phase, seconds in lifecycle.start_up_s.items()}
    told = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
    logger.info("start-up took %.1f s: %s", sum(phases.values()), told, extra={"start_up_s": phases})
    try:
        measured = await engine.memory(_DEADLINE_S)
    except RequestError as error:
        logger.warning("the memory could not be measured", extra={"reason": error.message})
        return
    for device in measured.devices:
        logger.info("memory of rank %d on %s: %s", device.rank, device.device, in_words(device), extra={"bytes": _figures(device)})
    if measured.planned is not None:
        most = {kind: max(_figures(device)[kind] for device in measured.devices) for kind in _PLANNED_KINDS}
        compared = {"planned": _planned_figures(measured.planned), "measured": most, "reason": measured.planned.reason}
        logger.info("memory: planned and measured", extra=compared)


def in_words(device: DeviceMemory) -> str:
    """`weights 0.25 (bfloat16) + KV cache 2.00 (48512 tokens) + ... + free 9.10 = 23.50 GiB`."""
    types = ", ".join(device.weights_by_dtype)
    notes = {"weights": f" ({types})", "kv_cache": f" ({device.kv_cache_tokens} tokens)"}
    sizes = _figures(device)
    parts = " + ".join(f"{kind.replace('_', ' ')} {sizes[kind] / _GIB:.2f}{notes.get(kind, '')}" for kind in _KINDS if kind != "total")
    return f"{parts} = {sizes['total'] / _GIB:.2f} GiB"


def _figures(device: DeviceMemory) -> dict[str, int]:
    return {kind: getattr(device, f"{kind}_bytes") for kind in _KINDS}


def _planned_figures(planned: Planned) -> dict[str, dict[str, int]]:
    return {kind: {end: round(getattr(interval, end)) for end in _ENDS} for kind, interval in planned.parts.items()}
