"""What the user has measured, in the place of what others have published: results of `tokenport bench throughput` on a GPU of the table.

Of each result the share of the nominal bandwidth that its decoding reached, and of its first tokens the share of the dense rate. Whatever
else happened meanwhile can only lower a share, so the highest is the estimate. They hold for the GPU and precision they were measured with.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.speed.efficiency import Efficiency

_SCHEMA_VERSION = 1
_SPREAD = 1.1
"""How far an end lies beyond the outermost measured share: a repeated run on the same machine varies by less than a tenth."""
_PRECISIONS = {"bfloat16": "float16", "float16": "float16", "int8": "int8", "float8": "float8"}
_OTHER_FORMS = {"pcie", "nvl", "mig"}
"""Words of a device's name by which it has another bandwidth than the one of the table, unless that has the word too."""
_Rate = Annotated[float, msgspec.Meta(gt=0)] | None


class _Kind(msgspec.Struct):
    kind: str
    schema_version: int


class _Gpu(msgspec.Struct):
    name: str


class _Machine(msgspec.Struct):
    cpu: str | None = None
    gpus: list[_Gpu] | None = None


class _Latency(msgspec.Struct):
    p50: _Rate = None


class _Metrics(msgspec.Struct):
    requests_per_s: float | None = None
    ttft_s: _Latency | None = None


class _Efficiency(msgspec.Struct):
    precision: str | None = None
    bytes_per_s: _Rate = None
    prefill_flops_per_s: float | None = None
    reasons: dict[str, str] = {}


class _Ledger(msgspec.Struct):
    devices: list[object] = []


class _Result(msgspec.Struct):
    """What is read of a result (benchmarks/report/schema.json)."""

    valid: bool
    machine: _Machine
    metrics: _Metrics
    invalid_reasons: list[str] = []
    efficiency: _Efficiency | None = None
    ledger: _Ledger | None = None


@dataclass(frozen=True)
class Measured:
    """Shares that one result shows, None where it does not tell; `precision` by the names of the GPU's rates."""

    file: str
    gpu: str
    precision: str
    bandwidth_share: float | None
    compute_share: float | None


def read_measured(path: Path, gpus: Mapping[str, Gpu]) -> Measured:
    """One result's shares of what `gpus` promise.

    Raises:
        PlanError: it is no valid result of `tokenport bench throughput`, its GPU is not in the table, or it says nothing of efficiency.
    """
    result = _read(path)
    found = result.efficiency or _Efficiency()
    precision = _PRECISIONS.get(found.precision or "")
    prefill_flops_per_s = _prefill_flops_per_s(result.metrics, found)
    if precision is None or (found.bytes_per_s is None and prefill_flops_per_s is None):
        why = next(iter(found.reasons.values()), "measure it with --model-config, against a server that tells GET /memory")
        raise PlanError(f"--calibrate {path}: does not say how much of the machine was used ({why})")
    names = [gpu.name for gpu in result.machine.gpus or ()]
    gpu = next((gpu for gpu in gpus.values() if names and all(_is_same(gpu.name, name) for name in names)), None)
    if gpu is None or precision not in gpu.flops_per_s:
        machine = " and ".join(dict.fromkeys(names)) or result.machine.cpu
        raise PlanError(f"--calibrate {path}: measured on {machine} in {precision}, which is not in the table: describe it with --hardware")
    num_gpus = len(result.ledger.devices if result.ledger else names) or len(names)
    return Measured(
        file=path.name,
        gpu=gpu.name,
        precision=precision,
        bandwidth_share=_share(found.bytes_per_s, gpu.bandwidth_bytes_per_s * num_gpus),
        compute_share=_share(prefill_flops_per_s, gpu.flops_per_s[precision] * num_gpus),
    )


def calibrated(efficiency: Efficiency, measured: Sequence[Measured], gpu: Gpu, precision: str) -> Efficiency:
    """`efficiency`, narrowed by what was measured on this GPU with this precision; itself where nothing was."""
    ours = [one for one in measured if (one.gpu, one.precision) == (gpu.name, precision)]
    bandwidth = _interval(ours, lambda one: one.bandwidth_share)
    compute = _interval(ours, lambda one: one.compute_share)
    if bandwidth is None and compute is None:
        return efficiency
    files = ", ".join(sorted({one.file for one in ours}))
    told = [name for name, found in (("bandwidth", bandwidth), ("rate", compute)) if found is not None]
    rest = "" if len(told) > 1 else f"; the rest on {efficiency.basis}"
    after = replace(efficiency, basis=f"the {' and the '.join(told)} measured on {gpu.name} in {precision}: {files}{rest}")
    # What the engine itself took is in the measured share of the bandwidth, and what 8 bits gain in that of the rate.
    if bandwidth is not None:
        after = replace(after, bandwidth_share=bandwidth, step_s=exactly(0.0))
    if compute is not None:
        after = replace(after, compute_share=compute, eight_bit_gain=exactly(1.0))
    return after


def _read(path: Path) -> _Result:
    try:
        text = path.read_bytes()
        kind = msgspec.json.decode(text, type=_Kind)
        if kind.kind != "throughput":
            raise PlanError(f"--calibrate {path}: is a result of `tokenport bench {kind.kind}`, not of `tokenport bench throughput`")
        if kind.schema_version != _SCHEMA_VERSION:
            raise PlanError(f"--calibrate {path}: has schema_version {kind.schema_version}, this version reads {_SCHEMA_VERSION}")
        result = msgspec.json.decode(text, type=_Result)
    except OSError as error:
        raise PlanError(f"--calibrate {path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"--calibrate {path}: is no result of `tokenport bench throughput --out FILE` ({error})") from error
    if not result.valid:
        reasons = "; ".join(result.invalid_reasons) or "it does not say why"
        raise PlanError(f"--calibrate {path}: the run was invalid ({reasons}), its figures show nothing")
    return result


def _is_same(name: str, device: str) -> bool:
    """`A100-80GB` is an `NVIDIA A100-SXM4-80GB`, `B200` no `NVIDIA GB200`, and `H100` no `NVIDIA H100 PCIe`."""
    known, found = (set(re.split(r"[ -]", text.lower())) for text in (name, device))
    return known <= found and not (found - known) & _OTHER_FORMS


def _prefill_flops_per_s(metrics: _Metrics, found: _Efficiency) -> float | None:
    """FLOPs of one prompt by the time to its first token: those of all prompts of a second, by the requests of a second."""
    ttft_s = metrics.ttft_s.p50 if metrics.ttft_s else None
    if not (found.prefill_flops_per_s and metrics.requests_per_s and ttft_s):
        return None
    return found.prefill_flops_per_s / metrics.requests_per_s / ttft_s


def _share(reached: float | None, promised: float) -> float | None:
    return min(reached / promised, 1.0) if reached else None


def _interval(measured: Sequence[Measured], share: Callable[[Measured], float | None]) -> Interval | None:
    values = [value for one in measured if (value := share(one)) is not None]
    return Interval(max(values), min(values) / _SPREAD, min(max(values) * _SPREAD, 1.0)) if values else None
