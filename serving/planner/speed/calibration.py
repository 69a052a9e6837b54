"""What the user has measured, in the place of what others have published: results of `tokenport bench throughput` on a GPU of the table.

Of each result the share of the nominal bandwidth that its decoding reached, and of its first tokens the share of the dense rate. Whatever
else happened meanwhile can only lower a share, so the highest is the estimate. They hold for the GPU and precision they were measured with.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.speed.efficiency import Efficiency

_SCHEMA_VERSION = 1
_SPREAD = 1.1
"""How far an end lies beyond the outermost measured share: a repeated run on the same machine varies by less than a tenth."""
_PRECISIONS = {"bfloat16": "float16", "float16": "float16", "int8": "int8", "float8": "float8"}


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
    document = _document(path)
    found = document.get("efficiency") or {}
    precision = _PRECISIONS.get(found.get("precision") or "")
    if precision is None:
        reasons = found.get("reasons") or {}
        why = next(iter(reasons.values()), "measure it with --model-config, against a server that tells GET /memory")
        raise PlanError(f"--calibrate {path}: does not say how much of the machine was used ({why})")
    names = [one["name"] for one in document["machine"].get("gpus") or []]
    gpu = next((gpu for gpu in gpus.values() if names and _is_same(gpu.name, names[0])), None)
    if gpu is None or precision not in gpu.flops_per_s:
        machine = names[0] if names else document["machine"].get("cpu")
        raise PlanError(f"--calibrate {path}: measured on {machine} in {precision}, which is not in the table: describe it with --hardware")
    num_gpus = len((document.get("ledger") or {}).get("devices") or names)
    return Measured(
        file=path.name,
        gpu=gpu.name,
        precision=precision,
        bandwidth_share=_share(found.get("bytes_per_s"), gpu.bandwidth_bytes_per_s * num_gpus),
        compute_share=_share(_prefill_flops_per_s(document), gpu.flops_per_s[precision] * num_gpus),
    )


def calibrated(efficiency: Efficiency, measured: Sequence[Measured], gpu: Gpu, precision: str) -> Efficiency:
    """`efficiency`, narrowed by what was measured on this GPU with this precision; itself where nothing was."""
    ours = [one for one in measured if (one.gpu, one.precision) == (gpu.name, precision)]
    bandwidth = _interval(ours, lambda one: one.bandwidth_share)
    compute = _interval(ours, lambda one: one.compute_share)
    if bandwidth is None and compute is None:
        return efficiency
    files = ", ".join(sorted({one.file for one in ours}))
    after = replace(efficiency, basis=f"what was measured on {gpu.name} in {precision}: {files}")
    # What the engine itself took is in the measured share of the bandwidth, and what 8 bits gain in that of the rate.
    if bandwidth is not None:
        after = replace(after, bandwidth_share=bandwidth, step_s=exactly(0.0))
    if compute is not None:
        after = replace(after, compute_share=compute, eight_bit_gain=exactly(1.0))
    return after


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"--calibrate {path}: cannot be read ({error})") from error
    if not isinstance(document, dict) or document.get("kind") != "throughput" or not isinstance(document.get("machine"), dict):
        raise PlanError(f"--calibrate {path}: is no result of `tokenport bench throughput --out FILE`")
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise PlanError(f"--calibrate {path}: has schema_version {document.get('schema_version')}, this version reads {_SCHEMA_VERSION}")
    if not document.get("valid"):
        reasons = "; ".join(document.get("invalid_reasons") or ["it does not say why"])
        raise PlanError(f"--calibrate {path}: the run was invalid ({reasons}), its figures show nothing")
    return document


def _is_same(name: str, device: str) -> bool:
    """`A100-80GB` is an `NVIDIA A100-SXM4-80GB`, `B200` no `NVIDIA GB200`."""
    return set(re.split(r"[ -]", name.lower())) <= set(re.split(r"[ -]", device.lower()))


def _prefill_flops_per_s(document: Mapping[str, Any]) -> float | None:
    """FLOPs of one prompt by the time to its first token: those of all prompts of a second, by the requests of a second."""
    metrics, found = document.get("metrics") or {}, document["efficiency"]
    requests_per_s, ttft_s = metrics.get("requests_per_s"), (metrics.get("ttft_s") or {}).get("p50")
    if not (found.get("prefill_flops_per_s") and requests_per_s and ttft_s):
        return None
    return float(found["prefill_flops_per_s"] / requests_per_s / ttft_s)


def _share(reached: float | None, promised: float) -> float | None:
    return min(reached / promised, 1.0) if reached else None


def _interval(measured: Sequence[Measured], share: Callable[[Measured], float | None]) -> Interval | None:
    values = [value for one in measured if (value := share(one)) is not None]
    return Interval(max(values), min(values) / _SPREAD, min(max(values) * _SPREAD, 1.0)) if values else None
