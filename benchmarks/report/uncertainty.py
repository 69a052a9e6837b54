"""The difference of one figure between two sides, with a 95 % interval, by what the data allow.

Rounds that were measured in turn: Student's t over the differences within rounds. At least three repeats a side: Welch's t over repeats,
since runs differ by more than their requests do. One run a side: for latencies a bootstrap over requests, all gaps of one together, in
blocks of neighbours in time (https://doi.org/10.1214/aos/1176347265); for rates Welch's t over blocks of the steady window, each at least
one answer long. The seed is fixed: the same files give the same interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.measuring.statistics import CONFIDENCE

Array = NDArray[np.float64]

MIN_REPEATS = 3
_TAIL = (1 - CONFIDENCE) / 2
_MOST_RESAMPLES, _LEAST_RESAMPLES = 1000, 200
_WORK = 1.5e8
"""Samples weighed in one bootstrap at most: a second or two."""
_CELLS = 2_000_000
"""Weights held at once."""
_MIN_BLOCKS, _MAX_BLOCKS = 5, 20

PAIRS = "Student's t over the differences within rounds"
REPEATS = "Welch's t over repeats"
REQUESTS = "bootstrap over requests, in blocks of neighbours in time"
BLOCKS = "Welch's t over blocks of the steady window"


@dataclass(frozen=True, slots=True)
class Spread:
    """`b - a`: the difference, its 95 % interval in the figure's unit, the share of `a` that it is with the interval of that (None where
    `a` is 0), and the method."""

    a: float
    b: float
    low: float
    high: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    method: str

    @property
    def is_noise(self) -> bool:
        """No difference is among what the data allow."""
        return self.low <= 0 <= self.high


def over_pairs(a: Sequence[float], b: Sequence[float]) -> Spread | None:
    """`a[i]` and `b[i]` were measured in the same round. None for fewer than two rounds."""
    if len(a) != len(b) or len(a) < 2:
        return None
    differences = np.subtract(b, a)
    half = float(stats.t.ppf(1 - _TAIL, len(a) - 1) * differences.std(ddof=1) / math.sqrt(len(a)))
    return _around(float(np.mean(a)), float(np.mean(b)), half, f"{PAIRS} ({len(a)} rounds)")


def over_repeats(a: Sequence[float], b: Sequence[float]) -> Spread | None:
    """None where a side has fewer than three."""
    if min(len(a), len(b)) < MIN_REPEATS:
        return None
    return _welch(a, b, float(np.mean(a)), float(np.mean(b)), f"{REPEATS} ({len(a)} and {len(b)})")


def over_blocks(a: Sequence[float], b: Sequence[float], rate_a: float, rate_b: float) -> Spread | None:
    """`a`, `b`: the rates of consecutive blocks, `rate_a`, `rate_b` those of the whole windows. None for too few blocks."""
    if min(len(a), len(b)) < _MIN_BLOCKS:
        return None
    return _welch(a, b, rate_a, rate_b, f"{BLOCKS} ({len(a)} and {len(b)})")


def num_blocks(window_s: float, answer_s: float) -> int:
    """How many blocks a window is cut into, each as long as an answer or longer: shorter ones would show the rhythm of the answers."""
    return min(_MAX_BLOCKS, int(window_s / answer_s)) if answer_s > 0 else 0


class Resampled:
    """The figures of one latency on one side, drawn again and again. `samples[i]`: those that request `i` gave, in the order of time."""

    def __init__(self, samples: Sequence[Sequence[float]], seed: int) -> None:
        self._lengths = np.asarray([len(one) for one in samples], dtype=np.int64)
        self._sums = np.asarray([sum(one) for one in samples], dtype=np.float64)
        flat = np.asarray([value for one in samples for value in one], dtype=np.float64)
        order = np.argsort(flat, kind="stable")
        self.values: Array = flat[order]
        self._owners = np.repeat(np.arange(len(samples)), self._lengths)[order]
        self._num_requests = len(samples)
        self._seed = seed

    def figures(self, names: Sequence[str]) -> Mapping[str, Array]:
        """Name (`mean`, `p50`, ...) -> its value in each resample."""
        num = int(min(_MOST_RESAMPLES, max(_LEAST_RESAMPLES, _WORK / max(1, len(self.values)))))
        at_once = max(1, _CELLS // max(1, len(self.values), self._num_requests))
        generator = np.random.default_rng(self._seed)
        drawn: dict[str, list[Array]] = {name: [] for name in names}
        for first in range(0, num, at_once):
            weights = _block_weights(self._num_requests, min(at_once, num - first), generator)
            # A resample of requests that gave no sample says nothing.
            weights = weights[weights @ self._lengths > 0]
            totals, reached = weights @ self._lengths, np.cumsum(weights.astype(np.int32)[:, self._owners], axis=1, dtype=np.int32)
            for name in names:
                figure = weights @ self._sums / totals if name == "mean" else _percentiles(self.values, reached, totals, int(name[1:]))
                drawn[name].append(figure)
        return {name: np.concatenate(values) for name, values in drawn.items()}


def over_requests(a: Array, b: Array, value_a: float, value_b: float) -> Spread:
    """`a`, `b`: a figure in each resample of the two sides, which were drawn independently of each other."""
    num = min(len(a), len(b))
    differences = b[:num] - a[:num]
    low, high = np.quantile(differences, [_TAIL, 1 - _TAIL])
    relative = relative_low = relative_high = None
    if value_a != 0 and np.all(a[:num] > 0):
        relative = value_b / value_a - 1
        relative_low, relative_high = (float(bound) for bound in np.quantile(b[:num] / a[:num] - 1, [_TAIL, 1 - _TAIL]))
    return Spread(value_a, value_b, float(low), float(high), relative, relative_low, relative_high, REQUESTS)


def _block_weights(num: int, num_resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each of `num` requests is drawn, a row a resample, by blocks of about the cube root of their number; after the last comes
    the first."""
    length = max(1, math.ceil(num ** (1 / 3)))
    starts = generator.integers(0, num, (num_resamples, math.ceil(num / length), 1))
    drawn = ((starts + np.arange(length)) % num).reshape(num_resamples, -1)[:, :num]
    rows = np.arange(num_resamples)[:, None] * num
    return np.bincount((drawn + rows).ravel(), minlength=num_resamples * num).reshape(num_resamples, num)


def _percentiles(values: Array, reached: NDArray[np.int32], totals: NDArray[np.int64], percentile: int) -> Array:
    """`numpy.percentile` of sorted values that stand in each row as often as `reached` rises."""
    positions = (totals - 1) * percentile / 100
    below = np.floor(positions).astype(np.int64)
    left = values[[np.searchsorted(row, at, side="right") for row, at in zip(reached, below, strict=True)]]
    above = np.minimum(below + 1, totals - 1)
    right = values[[np.searchsorted(row, at, side="right") for row, at in zip(reached, above, strict=True)]]
    return np.asarray(left + (right - left) * (positions - below), dtype=np.float64)


def _welch(a: Sequence[float], b: Sequence[float], value_a: float, value_b: float, method: str) -> Spread:
    variances = [float(np.var(side, ddof=1)) / len(side) for side in (a, b)]
    error = math.sqrt(sum(variances))
    if error == 0:
        return _around(value_a, value_b, 0.0, method)
    freedom = sum(variances) ** 2 / sum(variance**2 / (len(side) - 1) for variance, side in zip(variances, (a, b), strict=True))
    return _around(value_a, value_b, float(stats.t.ppf(1 - _TAIL, freedom)) * error, method)


def _around(a: float, b: float, half: float, method: str) -> Spread:
    low, high = b - a - half, b - a + half
    shares = (None, None, None) if a == 0 else tuple(sorted((low / a, high / a)))
    relative = None if a == 0 else (b - a) / a
    return Spread(a, b, low, high, relative, shares[0], shares[1], method)
