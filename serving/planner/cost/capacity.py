"""How much an instance of one's own does, how fast an API is and how fast answers must be, as the user says it."""

from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import PlanError
from serving.planner.cost.outcome import Slo, Speed
from serving.planner.cost.quantities import count, duration_s, parts

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


def _all(option: str, text: str, form: str, names: tuple[str, ...]) -> Mapping[str, str]:
    found = parts(option, text, form, names)
    for name in names:
        if name not in found:
            raise PlanError(f"{option} {text}: has no {name}; write {form}")
    return found


def _speed(option: str, found: Mapping[str, str]) -> Speed:
    return Speed(duration_s(f"{option} ttft", found["ttft"]), duration_s(f"{option} tpot", found["tpot"]))
