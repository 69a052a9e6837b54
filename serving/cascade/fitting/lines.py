"""Ways of answering the same requests as means with intervals, a line each.

An interval is the bootstrap's, over the requests and four that nobody saw: either end of what the way could have done, once right and once
wrong. Without these, thirty right answers of thirty would be right for certain (so do Agresti and Coull, "Approximate is better than
'exact' for interval estimation of binomial proportions", 1998).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.cascade.fitting.outcomes import ROUNDING, Floats

_NUM_RESAMPLES = 1000
_INTERVAL = (0.025, 0.975)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Way:
    """By request: quality, cost, and whether (or how probably) the last tier answers. `ends`: the least and the most that this could have
    been of any request, each with the mean cost of such an answer."""

    quality: Floats
    cost: Floats
    is_large: Floats
    ends: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Means over requests: `quality`, also as a share of the last tier's (`quality_ratio`, None where that is 0), `cost`, the share of it
    that is saved against the last tier alone (None where that costs nothing), and the share of requests that the last tier answered.
    `target_met`: of this sample; the intervals, of 95 %, say how far that carries."""

    quality: float
    quality_interval: Interval
    quality_ratio: float | None
    quality_ratio_interval: Interval | None
    cost: float
    cost_interval: Interval
    saving: float | None
    share_large: float
    share_large_interval: Interval
    target_met: bool


def lines(ways: Sequence[Way], large: Way, quality: float, seed: int) -> list[Line]:
    """A line a way; all are resampled together. `large` is the last tier alone, of whose mean quality `quality` is to be kept."""
    columns = np.hstack([_with_unseen(way, large) for way in ways])
    random = np.random.default_rng(seed)
    num = len(columns)
    resampled = np.stack([np.bincount(random.integers(num, size=num), minlength=num) @ columns / num for _ in range(_NUM_RESAMPLES)])
    return [_line(way, large, by_way, quality) for way, by_way in zip(ways, np.hsplit(resampled, len(ways)), strict=True)]


def _with_unseen(way: Way, large: Way) -> Floats:
    """(requests and four more, 4): quality, cost, whether the last tier answers, and that tier's quality."""
    seen = np.column_stack((way.quality, way.cost, way.is_large, large.quality))
    # Where the last tier answers, it is as good as itself; where it does not, it would have been what the answer was not.
    unseen = [(right, cost, share, share * right + (1 - share) * (1 - right)) for share, cost in way.ends for right in (0.0, 1.0)]
    return np.vstack((seen, unseen))


def _line(way: Way, large: Way, resampled: Floats, quality: float) -> Line:
    mean, cost = float(way.quality.mean()), float(way.cost.mean())
    best, large_cost = float(large.quality.mean()), float(large.cost.mean())
    return Line(
        quality=mean,
        quality_interval=_interval(resampled[:, 0]),
        quality_ratio=mean / best if best else None,
        quality_ratio_interval=_interval(resampled[:, 0] / np.maximum(resampled[:, 3], ROUNDING)) if best else None,
        cost=cost,
        cost_interval=_interval(resampled[:, 1]),
        saving=1 - cost / large_cost if large_cost else None,
        share_large=float(way.is_large.mean()),
        share_large_interval=_interval(resampled[:, 2]),
        target_met=mean >= quality * best - ROUNDING,
    )


def _interval(values: Floats) -> Interval:
    low, high = np.quantile(values, _INTERVAL)
    return float(low), float(high)
