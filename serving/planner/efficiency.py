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
    def estimate(self) -> Conditions:
        """What is expected."""
        return Conditions(
            self.bandwidth_share.estimate,
            self.compute_share.estimate,
            self.eight_bit_gain.estimate,
            {link: one.estimate for link, one in self.all_reduce_s.items()},
            {link: one.estimate for link, one in self.link_bytes_per_s.items()},
            self.step_s.estimate,
        )

    @property
    def best(self) -> Conditions:
        """All that makes it fast, together."""
        return Conditions(
            self.bandwidth_share.high,
            self.compute_share.high,
            self.eight_bit_gain.high,
            {link: one.low for link, one in self.all_reduce_s.items()},
            {link: one.high for link, one in self.link_bytes_per_s.items()},
            self.step_s.low,
        )

    @property
    def worst(self) -> Conditions:
        """All that makes it slow, together."""
        return Conditions(
            self.bandwidth_share.low,
            self.compute_share.low,
            self.eight_bit_gain.low,
            {link: one.high for link, one in self.all_reduce_s.items()},
            {link: one.low for link, one in self.link_bytes_per_s.items()},
            self.step_s.high,
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
