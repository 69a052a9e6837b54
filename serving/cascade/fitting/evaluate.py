"""A policy on outcomes that it was not fitted on, beside what needs no policy: each with intervals, all over the same requests.

`small`, `large`: the first or the last tier alone. `random`, `prompt_length`: as large a share to the last tier as the policy sends
there, by lot (its expectation, no draw) or the longest conversations; the rest to the first. `oracle`: on each request the best answer
of all, the cheapest where several are as good. `naive`: the policy with the threshold that only seemed to keep the quality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.cascade.fitting.outcomes import Floats, Outcomes
from serving.cascade.fitting.replay import Replay, chances, replay, with_threshold
from serving.cascade.policy import Policy
from serving.cascade.request_features import text_of
from serving.errors import CascadeError

_NUM_RESAMPLES = 1000
_INTERVAL = (0.025, 0.975)
_ROUNDING = 1e-12
"""Sums of the same numbers in another order differ by less."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Means over requests: `quality`, also as a share of the last tier's (`quality_ratio`), `cost`, the share of it that is saved against
    the last tier alone, and the share of requests that the last tier answered. `target_met`: of this sample; the intervals, of 95 %, say
    how far that carries."""

    quality: float
    quality_interval: Interval
    quality_ratio: float
    quality_ratio_interval: Interval
    cost: float
    cost_interval: Interval
    saving: float
    share_large: float
    share_large_interval: Interval
    target_met: bool


@dataclass(frozen=True)
class Evaluation:
    """`target`: the mean quality to be reached. `share_needed`: what share of the requests each way of choosing would have to send to the
    last tier, the rest to the first, to reach it on these requests. `is_held_out`: they are not those of the fit."""

    policy: Line
    naive: Line
    baselines: Mapping[str, Line]
    share_needed: Mapping[str, float]
    target: float
    num_requests: int
    is_held_out: bool


@dataclass(frozen=True)
class _Sample:
    """By request: quality, cost, and whether (or how probably) the last tier answered."""

    quality: Floats
    cost: Floats
    is_large: Floats


def evaluate(policy: Policy, outcomes: Outcomes, seed: int = 0) -> Evaluation:
    """Evaluate. `seed` is that of the resampling.

    Raises:
        CascadeError: the outcomes are of other tiers, or lack signals that the policy needs.
    """
    outcomes = _in_order_of(policy, outcomes)
    said = chances(policy.stages, outcomes)
    chosen = _sample_of(replay(policy.stages, said, outcomes), outcomes)
    naive = _sample_of(replay(with_threshold(policy.stages, policy.fitted_on.naive_threshold), said, outcomes), outcomes)
    baselines = _baselines(outcomes, float(chosen.is_large.mean()))
    quality = policy.fitted_on.quality
    lines = _lines([chosen, naive, *baselines.values()], outcomes, quality, seed)
    return Evaluation(
        policy=lines[0],
        naive=lines[1],
        baselines=dict(zip(baselines, lines[2:], strict=True)),
        share_needed=_share_needed(outcomes, quality),
        target=quality * float(outcomes.quality[:, -1].mean()),
        num_requests=len(outcomes),
        is_held_out=outcomes.sha256 != policy.fitted_on.outcomes_sha256,
    )


def _in_order_of(policy: Policy, outcomes: Outcomes) -> Outcomes:
    """The outcomes with the policy's tiers, in its order."""
    tiers = (*(stage.tier for stage in policy.stages), policy.last_tier)
    if sorted(tiers) != sorted(outcomes.tiers):
        raise CascadeError(f"the policy is for the tiers {', '.join(tiers)}; the outcomes are of {', '.join(outcomes.tiers)}")
    order = [outcomes.tiers.index(tier) for tier in tiers]
    return replace(outcomes, tiers=tiers, quality=outcomes.quality[:, order], cost=outcomes.cost[:, order])


def _sample_of(run: Replay, outcomes: Outcomes) -> _Sample:
    return _Sample(run.quality, run.cost, (run.answered == len(outcomes.tiers) - 1).astype(float))


def _baselines(outcomes: Outcomes, share_large: float) -> dict[str, _Sample]:
    num = len(outcomes)
    best = np.lexsort((outcomes.cost, -outcomes.quality), axis=1)[:, 0]
    longest = np.zeros(num)
    longest[_longest_first(outcomes)[: round(share_large * num)]] = 1
    return {
        "small": _between(outcomes, np.zeros(num)),
        "large": _between(outcomes, np.ones(num)),
        "random": _between(outcomes, np.full(num, share_large)),
        "prompt_length": _between(outcomes, longest),
        "oracle": _sample_of(Replay(best, outcomes.quality[np.arange(num), best], outcomes.cost[np.arange(num), best]), outcomes),
    }


def _between(outcomes: Outcomes, is_large: Floats) -> _Sample:
    """The first and the last tier, chosen between before either is asked."""
    quality = outcomes.quality[:, 0] + is_large * (outcomes.quality[:, -1] - outcomes.quality[:, 0])
    return _Sample(quality, outcomes.cost[:, 0] + is_large * (outcomes.cost[:, -1] - outcomes.cost[:, 0]), is_large)


def _longest_first(outcomes: Outcomes) -> NDArray[np.intp]:
    return np.argsort([-sum(len(text_of(message)) for message in messages) for messages in outcomes.messages], kind="stable")


def _share_needed(outcomes: Outcomes, quality: float) -> dict[str, float]:
    small, gain = outcomes.quality[:, 0], outcomes.quality[:, -1] - outcomes.quality[:, 0]
    missing = quality * outcomes.quality[:, -1].sum() - small.sum()

    def share(gains: Floats) -> float:
        reached = np.concatenate(([0.0], np.cumsum(gains))) >= missing - _ROUNDING * len(gains)
        reached[-1] = True  # the last tier alone is enough, however the sums are rounded
        return float(np.argmax(reached)) / len(gains)

    return {
        "random": share(np.full(len(gain), gain.mean())),
        "prompt_length": share(gain[_longest_first(outcomes)]),
        "oracle": share(np.sort(gain)[::-1]),
    }


def _lines(samples: Sequence[_Sample], outcomes: Outcomes, quality: float, seed: int) -> list[Line]:
    """A line a sample; all are resampled together, so that ratios are of the same requests."""
    columns = np.stack([column for sample in samples for column in (sample.quality, sample.cost, sample.is_large)], axis=1)
    columns = np.column_stack((columns, outcomes.quality[:, -1], outcomes.cost[:, -1]))
    random = np.random.default_rng(seed)
    num = len(outcomes)
    resampled = np.stack([np.bincount(random.integers(num, size=num), minlength=num) @ columns / num for _ in range(_NUM_RESAMPLES)])
    means = columns.mean(axis=0)
    return [_line(means, resampled, 3 * index, quality) for index in range(len(samples))]


def _line(means: Floats, resampled: Floats, first: int, quality: float) -> Line:
    """`means` and each row of `resampled`: quality, cost, share of each sample; last the quality and the cost of the last tier alone."""
    large_quality, large_cost = float(means[-2]), float(means[-1])
    ratios = resampled[:, first] / np.maximum(resampled[:, -2], _ROUNDING)
    return Line(
        quality=float(means[first]),
        quality_interval=_interval(resampled[:, first]),
        quality_ratio=float(means[first]) / max(large_quality, _ROUNDING),
        quality_ratio_interval=_interval(ratios),
        cost=float(means[first + 1]),
        cost_interval=_interval(resampled[:, first + 1]),
        saving=1 - float(means[first + 1]) / max(large_cost, _ROUNDING),
        share_large=float(means[first + 2]),
        share_large_interval=_interval(resampled[:, first + 2]),
        target_met=bool(means[first] >= quality * large_quality - _ROUNDING),
    )


def _interval(values: Floats) -> Interval:
    low, high = np.quantile(values, _INTERVAL)
    return float(low), float(high)
