"""When requests are due: sorted seconds from the start, drawn from a seeded generator.

A renewal process of rate one (constant, Poisson, gamma) is laid over time by the inverse of the rate's integral, so that a stage, a ramp
and a steady rate are the same few lines. Draws are never rescaled to make the last one fall on N/rate: that would bind every gap to all
others and take away the very swings of load that queueing answers to. The rate that came of it is reported instead.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.quantities import duration_s, wrong

Seconds = NDArray[np.float64]
ProcessKind = Literal["constant", "poisson", "gamma"]

STAGES_FORM = (
    "must be RATE/s:DURATION stages with commas between them, such as 2/s:30s,4/s:1m; a ramp is FROM..TO/s:DURATION, such as 1..8/s:60s"
)
_STAGE = re.compile(r"(?P<first>\d+(?:\.\d+)?)(?:\.\.(?P<last>\d+(?:\.\d+)?))?/s:(?P<duration>[^:]+)")


@dataclass(frozen=True, slots=True)
class Process:
    """How gaps vary. `burstiness` is vLLM's: the gamma distribution's shape; 1 is Poisson, below it burstier, above it more even."""

    kind: ProcessKind = "poisson"
    burstiness: float = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """`duration_s` at a rate that goes linearly from `first_rate` to `last_rate`, requests a second."""

    first_rate: float
    last_rate: float
    duration_s: float

    @property
    def expected_requests(self) -> float:
        """The integral of the rate."""
        return (self.first_rate + self.last_rate) / 2 * self.duration_s


def steady(rate: float, duration_s: float) -> tuple[Stage, ...]:
    """One rate throughout."""
    return (Stage(rate, rate, duration_s),)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """The stages of `--stages`."""
    stages = tuple(_parse_stage(part.strip(), text) for part in text.split(","))
    if sum(stage.expected_requests for stage in stages) == 0:
        raise wrong("--stages", text, "no stage has a rate above zero")
    return stages


def _parse_stage(part: str, text: str) -> Stage:
    found = _STAGE.fullmatch(part)
    if found is None:
        raise wrong("--stages", text, f"{part!r} is no stage: {STAGES_FORM}")
    first_rate = float(found["first"])
    last_rate = first_rate if found["last"] is None else float(found["last"])
    return Stage(first_rate, last_rate, duration_s("--stages", found["duration"]))


def first_arrivals(process: Process, rate: float, num_requests: int, rng: np.random.Generator) -> Seconds:
    """The first `num_requests` arrivals at a steady rate."""
    return _renewals(process, num_requests, rng) / rate


def arrivals_within(process: Process, stages: Sequence[Stage], rng: np.random.Generator) -> tuple[Seconds, NDArray[np.int64]]:
    """All arrivals until the end of the stages, and the stage, from 0, in which each falls."""
    expected = np.array([stage.expected_requests for stage in stages])
    edges = np.concatenate(([0.0], np.cumsum(expected)))
    due = _renewals_until(process, float(edges[-1]), rng)
    # side="right": an arrival on the edge belongs to the stage that begins there; stages of rate zero have no width and get none.
    stage_of = np.searchsorted(edges, due, side="right") - 1
    starts_s = np.concatenate(([0.0], np.cumsum([stage.duration_s for stage in stages])))
    times_s = np.empty_like(due)
    for index, stage in enumerate(stages):
        inside = stage_of == index
        times_s[inside] = starts_s[index] + _time_in_stage(stage, due[inside] - edges[index])
    return times_s, stage_of.astype(np.int64)


def trace_times(times_s: Sequence[float], speed: float = 1.0) -> Seconds:
    """A trace's own times from its first request on, `speed` times as fast. Expects them sorted."""
    times = np.asarray(times_s, dtype=np.float64)
    return (times - times[0]) / speed if len(times) else times


def _renewals(process: Process, num_arrivals: int, rng: np.random.Generator) -> Seconds:
    """Arrivals of a process of rate one. The constant one starts at zero, so that a window of whole gaps holds a whole number of them."""
    if process.kind == "constant":
        return np.arange(num_arrivals, dtype=np.float64)
    shape = 1.0 if process.kind == "poisson" else process.burstiness
    return np.cumsum(rng.gamma(shape, 1.0 / shape, size=num_arrivals))


def _renewals_until(process: Process, end: float, rng: np.random.Generator) -> Seconds:
    """Arrivals of rate one before `end`, drawn in blocks until one falls behind it."""
    if process.kind == "constant":
        # 1e-9: 0.1/s for 30 s is 3.0000000000000004 expected requests, and three.
        return np.arange(math.ceil(end - 1e-9), dtype=np.float64)
    drawn = np.empty(0)
    while len(drawn) == 0 or drawn[-1] < end:
        last = drawn[-1] if len(drawn) else 0.0
        drawn = np.concatenate((drawn, last + _renewals(process, int(end) + 64, rng)))
    return drawn[drawn < end]


def _time_in_stage(stage: Stage, expected: Seconds) -> Seconds:
    """When the integral of the stage's rate reaches `expected`: a root of rate * t + slope * t**2 / 2, in the form good at 0."""
    slope = (stage.last_rate - stage.first_rate) / stage.duration_s
    root = np.sqrt(np.maximum(stage.first_rate**2 + 2 * slope * expected, 0.0))
    # At rate zero and expected zero this is 0/0: a ramp from zero, whose first constant arrival is due at its start.
    divisor = stage.first_rate + root
    return np.divide(2 * expected, divisor, out=np.zeros_like(expected), where=divisor > 0)
