"""How much an instance of one's own does: as it was measured by `tokenport bench`, or as the user says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import PlanError
from serving.planner.cost.outcome import Slo, Speed
from serving.planner.cost.quantities import count, duration_s, parts

_SCHEMA_VERSION = 1
CAPACITY_FORM = "concurrency=16,ttft=400ms,tpot=25ms"
SPEED_FORM = "ttft=400ms,tpot=25ms"
SLO_FORM = "ttft=2s,e2e=30s"


@dataclass(frozen=True)
class Capacity:
    """`concurrency` requests at once, each at `speed`; `source` says who says so, `assumed` what that leaves open."""

    concurrency: int
    speed: Speed
    source: str
    assumed: tuple[str, ...] = ()


def parse_capacity(text: str) -> Capacity:
    """`concurrency=16,ttft=400ms,tpot=25ms`."""
    found = _all("--capacity", text, CAPACITY_FORM, ("concurrency", "ttft", "tpot"))
    return Capacity(count("--capacity concurrency", found["concurrency"]), _speed("--capacity", found), "--capacity")


def parse_speed(option: str, text: str) -> Speed:
    """`ttft=400ms,tpot=25ms`."""
    return _speed(option, _all(option, text, SPEED_FORM, ("ttft", "tpot")))


def parse_slo(text: str, share: float) -> Slo:
    """`wait=1s,ttft=2s,e2e=30s`, any of them."""
    found = parts("--slo", text, SLO_FORM, ("wait", "ttft", "e2e"))
    return Slo(**{f"{name}_s": duration_s(f"--slo {name}", value) for name, value in found.items()}, share=share)


def read_capacity(path: Path) -> Capacity:
    """From a result of `tokenport bench throughput`: the load that it chose, with the means it measured there.

    Raises:
        PlanError: it is no such result, it is not valid, or it does not tell.
    """
    document = _result("--bench", path, "throughput")
    try:
        metrics, measured = document["metrics"], document["created"][:10]
        ttft_s, tpot_s = float(metrics["ttft_s"]["mean"]), float(metrics["tpot_s"]["mean"])
        chosen = document["runs"][(document.get("chosen") or [0])[0]]["load"]
        concurrency = int(chosen.get("concurrency") or round(metrics["mean_concurrency"]))
        input_tokens = metrics["tokens"]["prompt"] / max(metrics["num_requests"], 1)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PlanError(
            f"--bench {path}: does not tell TTFT, TPOT and concurrency: measure with streaming and answers of several tokens"
        ) from error
    if concurrency < 1:
        raise PlanError(f"--bench {path}: was measured at less than one request at once; measure it at the concurrency it shall serve")
    assumed = f"prompts take as long as the {input_tokens:.0f} tokens that {path.name} was measured with"
    return Capacity(concurrency, Speed(ttft_s, tpot_s), f"{path.name}, measured {measured}", (assumed,))


def read_cold_start_s(path: Path) -> float:
    """From a result of `tokenport bench startup`: the mean from the start of the process to ready."""
    document = _result("--startup", path, "startup")
    try:
        return float(document["metrics"]["ready_s"]["mean"])
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"--startup {path}: does not tell metrics.ready_s.mean") from error


def _result(option: str, path: Path, kind: str) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{option} {path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != kind or document.get("schema_version") != _SCHEMA_VERSION:
        raise PlanError(f"{option} {path}: is no result of `tokenport bench {kind}` of schema_version {_SCHEMA_VERSION}")
    if document.get("valid") is not True:
        raise PlanError(f"{option} {path}: the run is not valid: {'; '.join(document.get('invalid_reasons') or ['it does not say why'])}")
    return document


def _all(option: str, text: str, form: str, names: tuple[str, ...]) -> Mapping[str, str]:
    found = parts(option, text, form, names)
    for name in names:
        if name not in found:
            raise PlanError(f"{option} {text}: has no {name}; write {form}")
    return found


def _speed(option: str, found: Mapping[str, str]) -> Speed:
    return Speed(duration_s(f"{option} ttft", found["ttft"]), duration_s(f"{option} tpot", found["tpot"]))
