"""How much of what a data sheet promises is reached: the shares by which a roofline becomes an estimate of time.

They are fitted to published measurements (`speed.json`, each with its source), or to the user's own (`calibration.py`). Knows no model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from serving.planner.hardware import Link
from serving.planner.interval import Interval

_POINTS = Path(__file__).with_name("speed.json")
_WIDER = 1.25
"""By how much an end lies beyond the outermost of the measured points: their machines, engine versions and models are others."""


@dataclass(frozen=True)
class Conditions:
    """One set of figures to compute with: shares of the nominal bandwidth and dense rate, seconds of a sum over all ranks before its
    bytes, bytes a second of a link in one direction, and seconds of a step besides the GPU's work."""

    bandwidth_share: float
    compute_share: float
    eight_bit_gain: float
    all_reduce_s: Mapping[Link, float]
    link_bytes_per_s: Mapping[Link, float]
    step_s: float


@dataclass(frozen=True)
class Efficiency:
    """Each figure of `Conditions` as an interval; `basis` says in a sentence what they stand on."""

    bandwidth_share: Interval
    compute_share: Interval
    eight_bit_gain: Interval
    all_reduce_s: Mapping[Link, Interval]
    link_bytes_per_s: Mapping[Link, Interval]
    step_s: Interval
    basis: str

    @property
    def expected(self) -> Conditions:
        """Each at its estimate."""
        return self._at("estimate", "estimate")

    @property
    def best(self) -> Conditions:
        """All that makes it fast, together."""
        return self._at("high", "low")

    @property
    def worst(self) -> Conditions:
        """All that makes it slow, together."""
        return self._at("low", "high")

    def _at(self, of_rates: str, of_times: str) -> Conditions:
        """With the named end of every share and rate, and of every time."""
        return Conditions(
            bandwidth_share=getattr(self.bandwidth_share, of_rates),
            compute_share=getattr(self.compute_share, of_rates),
            eight_bit_gain=getattr(self.eight_bit_gain, of_rates),
            all_reduce_s={link: getattr(one, of_times) for link, one in self.all_reduce_s.items()},
            link_bytes_per_s={link: getattr(one, of_rates) for link, one in self.link_bytes_per_s.items()},
            step_s=getattr(self.step_s, of_times),
        )


def published_efficiency() -> Efficiency:
    """From the published points."""
    table = json.loads(_POINTS.read_text(encoding="utf-8"))
    return Efficiency(
        bandwidth_share=_share(table["bandwidth_share"]),
        compute_share=_share(table["compute_share"]),
        eight_bit_gain=_share(table["eight_bit_gain"]),
        all_reduce_s={link: _interval(entry) for link, entry in table["all_reduce_s"].items()},
        link_bytes_per_s={link: _interval(entry) for link, entry in table["link_bytes_per_s"].items()},
        step_s=_interval(table["step_s"]),
        basis="published measurements of other machines, models and engine versions: the intervals are wide; narrow them with --calibrate",
    )


def _interval(entry: Mapping[str, Any]) -> Interval:
    if "points" not in entry:
        return Interval(entry["estimate"], entry["low"], entry["high"])
    values = [point["value"] for point in entry["points"]]
    return Interval(median(values), min(values) / _WIDER, max(values) * _WIDER)


def _share(entry: Mapping[str, Any]) -> Interval:
    """No more than all is ever reached."""
    found = _interval(entry)
    return Interval(found.estimate, found.low, min(found.high, 1.0))
