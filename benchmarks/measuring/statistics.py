"""Samples to figures: mean and percentiles, each with its interval, and none where the samples do not carry it.

A percentile p of n samples is given where n (1 - p) >= 1: below that it would be the maximum under another name. Its 95 % interval is
that of order statistics, which asks nothing of the distribution; its upper end is null where even the largest sample does not bound it
(p99 of fewer than 368). The mean's interval is by batch means in the order of time, since neighbours in time are alike:
https://doi.org/10.1287/opre.41.6.1172"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

PERCENTILES = (50, 90, 99)
CONFIDENCE = 0.95
_MAX_BATCHES = 20
_MIN_BATCHES = 5

Interval = list[float | None]


def summarize(samples: Sequence[float]) -> dict[str, Any]:
    """Mean, percentiles, least and most of `samples`, which stand in the order of time; `ci` holds the 95 % interval of each figure."""
    figures: dict[str, Any] = {"mean": None, **{f"p{p}": None for p in PERCENTILES}, "min": None, "max": None}
    intervals: dict[str, Interval | None] = {name: None for name in ("mean", *(f"p{p}" for p in PERCENTILES))}
    if samples:
        array = np.asarray(samples, dtype=float)
        figures |= {"mean": float(array.mean()), "min": float(array.min()), "max": float(array.max())}
        intervals["mean"] = mean_interval(samples)
        for p in PERCENTILES:
            if is_enough(len(samples), p):
                figures[f"p{p}"] = float(np.percentile(array, p))
                intervals[f"p{p}"] = percentile_interval(samples, p)
    return {**figures, "num_samples": len(samples), "ci": intervals}


def is_enough(num_samples: int, percentile: float) -> bool:
    """Whether so many samples carry this percentile."""
    return num_samples * (100 - percentile) >= 100 and num_samples >= 2


def percentile_interval(samples: Sequence[float], percentile: float) -> Interval:
    """Between two order statistics, of which each is on the wrong side in at most 2.5 % of all cases. None: not bounded by the samples."""
    ordered = np.sort(np.asarray(samples, dtype=float))
    num, share, tail = len(ordered), percentile / 100, (1 - CONFIDENCE) / 2
    # The number of samples below the true percentile is binomial: x_(k) lies above it with the probability that fewer than k are below.
    lower = int(stats.binom.ppf(tail, num, share))
    upper = int(stats.binom.ppf(1 - tail, num, share)) + 1
    return [float(ordered[lower - 1]) if lower >= 1 else None, float(ordered[upper - 1]) if upper <= num else None]


def mean_interval(samples: Sequence[float]) -> Interval | None:
    """Of the mean, by Student's t over the means of up to 20 batches; None for fewer than 5 samples a batch in 5 batches."""
    num_batches = min(_MAX_BATCHES, len(samples) // 5)
    if num_batches < _MIN_BATCHES:
        return None
    means = [float(np.mean(batch)) for batch in np.array_split(np.asarray(samples, dtype=float), num_batches)]
    return t_interval(means)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean of independent `values`; None for fewer than two."""
    if len(values) < 2:
        return None
    middle = float(np.mean(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return [middle - half, middle + half]


def spread(samples: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and the most of what was watched densely, whatever its number; None of nothing."""
    if not samples:
        return {"p50": None, "p99": None, "max": None}
    array = np.asarray(samples, dtype=float)
    return {"p50": float(np.percentile(array, 50)), "p99": float(np.percentile(array, 99)), "max": float(array.max())}
