"""What `tokenport bench` measured, as far as costs need it: how much an instance does, and how long one takes to start.

Every figure keeps the file, the day and the machine that it is from; whether that is the machine whose hours are paid, nobody checks.
"""

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from serving.errors import PlanError
from serving.planner.cost.capacity import Capacity
from serving.planner.cost.outcome import Speed

_SCHEMA_VERSION = 1
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Head(msgspec.Struct):
    """What is read of every result (benchmarks/report/schema.json) before the rest."""

    kind: str
    schema_version: int
    valid: bool
    invalid_reasons: list[str] = []


class _Gpu(msgspec.Struct):
    name: str


class _Machine(msgspec.Struct):
    cpu: str | None = None
    gpus: list[_Gpu] = []


class _Result(msgspec.Struct):
    created: str
    machine: _Machine

    def source(self, path: Path) -> str:
        machine = " and ".join(dict.fromkeys(gpu.name for gpu in self.machine.gpus)) or self.machine.cpu or "an unnamed machine"
        return f"{path.name}, measured {self.created[:10]} on {machine}"


class _Mean(msgspec.Struct):
    mean: _Seconds


class _Tokens(msgspec.Struct):
    prompt: int


class _ThroughputMetrics(msgspec.Struct):
    ttft_s: _Mean
    tpot_s: _Mean
    tokens: _Tokens
    num_requests: Annotated[int, msgspec.Meta(ge=1)]
    mean_concurrency: float | None = None


class _Load(msgspec.Struct):
    concurrency: int | None = None


class _Run(msgspec.Struct):
    load: _Load


class _Throughput(_Result, kw_only=True):
    metrics: _ThroughputMetrics
    runs: list[_Run]
    chosen: list[int] = []


class _StartupMetrics(msgspec.Struct):
    ready_s: _Mean


class _Startup(_Result, kw_only=True):
    metrics: _StartupMetrics


_Form = TypeVar("_Form", bound=_Result)


def read_capacity(path: Path) -> Capacity:
    """From a result of `tokenport bench throughput`: the load that it chose, with the means it measured there.

    Raises:
        PlanError: it is no such result, it is not valid, or it does not tell.
    """
    found = _read("--bench", path, "throughput", _Throughput, "TTFT, TPOT and concurrency of streamed answers of several tokens")
    metrics, chosen = found.metrics, found.chosen[0] if found.chosen else 0
    if not 0 <= chosen < len(found.runs):
        raise PlanError(f"--bench {path}: `chosen` names run {chosen}, and there are {len(found.runs)}")
    concurrency = found.runs[chosen].load.concurrency or round(metrics.mean_concurrency or 0)
    if concurrency < 1:
        raise PlanError(f"--bench {path}: was measured at less than one request at once; measure it at the concurrency it shall serve")
    assumed = f"prompts take as long as the {metrics.tokens.prompt / metrics.num_requests:.0f} tokens that {path.name} was measured with"
    return Capacity(concurrency, Speed(metrics.ttft_s.mean, metrics.tpot_s.mean), found.source(path), (assumed,))


def read_cold_start(path: Path) -> tuple[float, str]:
    """From a result of `tokenport bench startup`: the mean seconds from the start of the process to ready, and where that is from.

    Raises:
        PlanError: it is no such result, it is not valid, or it does not tell.
    """
    found = _read("--startup", path, "startup", _Startup, "the time until ready")
    return found.metrics.ready_s.mean, found.source(path)


def _read(option: str, path: Path, kind: str, form: type[_Form], measured: str) -> _Form:
    try:
        text = path.read_bytes()
        head = msgspec.json.decode(text, type=_Head)
        if (head.kind, head.schema_version) != (kind, _SCHEMA_VERSION):
            raise PlanError(
                f"{option} {path}: is a result of `tokenport bench {head.kind}` of schema_version {head.schema_version}, not of "
                f"`tokenport bench {kind}` of schema_version {_SCHEMA_VERSION}"
            )
        if not head.valid:
            reasons = "; ".join(head.invalid_reasons) or "it does not say why"
            raise PlanError(f"{option} {path}: the run is not valid: {reasons}")
        return msgspec.json.decode(text, type=form)
    except OSError as error:
        raise PlanError(f"{option} {path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{option} {path}: does not tell {measured}: {error}") from error
