"""A policy on outcomes that it was not fitted on, beside what needs no policy: each with intervals, all over the same requests.

`small`, `large`: the first or the last tier alone. `random`, `prompt_length`: as large a share to the last tier as the policy sends
there, by lot (its expectation, no draw) or the longest conversations; the rest to the first. `oracle`: on each request the best answer
of all, the cheapest where several are as good. `naive`: the policy with the threshold that only seemed to keep the quality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.cascade.fitting.lines import Line, Way, lines
from serving.cascade.fitting.outcomes import ROUNDING, Floats, Outcomes
from serving.cascade.fitting.replay import Chances, chances, replay, with_threshold
from serving.cascade.policy import Policy, Stage
from serving.cascade.request_features import text_of
from serving.errors import CascadeError


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


def evaluate(policy: Policy, outcomes: Outcomes, seed: int = 0) -> Evaluation:
    """Evaluate. `seed` is that of the resampling.

    Raises:
        CascadeError: the outcomes are of other tiers, or lack signals that the policy needs.
    """
    outcomes = _in_order_of(policy, outcomes)
    said = chances(policy.stages, outcomes)
    chosen = _way_of(policy.stages, said, outcomes)
    naive = _way_of(with_threshold(policy.stages, policy.fitted_on.naive_threshold), said, outcomes)
    baselines = _baselines(outcomes, float(chosen.is_large.mean()))
    quality = policy.fitted_on.quality
    found = lines([chosen, naive, *baselines.values()], baselines["large"], quality, seed)
    return Evaluation(
        policy=found[0],
        naive=found[1],
        baselines=dict(zip(baselines, found[2:], strict=True)),
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


def _way_of(stages: Sequence[Stage], said: Sequence[Chances], outcomes: Outcomes) -> Way:
    if not any(stage.can_answer for stage in stages):
        return _between(outcomes, np.ones(len(outcomes)))
    run = replay(stages, said, outcomes)
    costs = outcomes.cost.mean(axis=0)
    return Way(run.quality, run.cost, _is_last(run.answered, outcomes), ((0.0, costs[0]), (1.0, costs.sum())))


def _baselines(outcomes: Outcomes, share_large: float) -> dict[str, Way]:
    num = len(outcomes)
    longest = np.zeros(num)
    longest[_longest_first(outcomes)[: round(share_large * num)]] = 1
    return {
        "small": _between(outcomes, np.zeros(num)),
        "large": _between(outcomes, np.ones(num)),
        "random": _between(outcomes, np.full(num, share_large)),
        "prompt_length": _between(outcomes, longest),
        "oracle": _oracle(outcomes),
    }


def _between(outcomes: Outcomes, is_large: Floats) -> Way:
    """The first and the last tier, chosen between before either is asked."""
    quality, cost = (each[:, 0] + is_large * (each[:, -1] - each[:, 0]) for each in (outcomes.quality, outcomes.cost))
    costs = outcomes.cost.mean(axis=0)
    least, most = ((share, costs[0] + share * (costs[-1] - costs[0])) for share in (is_large.min(), is_large.max()))
    return Way(quality, cost, is_large, (least, most))


def _oracle(outcomes: Outcomes) -> Way:
    rows, best = np.arange(len(outcomes)), np.lexsort((outcomes.cost, -outcomes.quality), axis=1)[:, 0]
    costs = outcomes.cost.mean(axis=0)
    return Way(outcomes.quality[rows, best], outcomes.cost[rows, best], _is_last(best, outcomes), ((0.0, costs[0]), (1.0, costs[-1])))


def _is_last(answered: NDArray[np.intp], outcomes: Outcomes) -> Floats:
    return (answered == len(outcomes.tiers) - 1).astype(float)


def _longest_first(outcomes: Outcomes) -> NDArray[np.intp]:
    return np.argsort([-sum(len(text_of(message)) for message in messages) for messages in outcomes.messages], kind="stable")


def _share_needed(outcomes: Outcomes, quality: float) -> dict[str, float]:
    small, gain = outcomes.quality[:, 0], outcomes.quality[:, -1] - outcomes.quality[:, 0]
    missing = quality * outcomes.quality[:, -1].sum() - small.sum()

    def share(gains: Floats) -> float:
        reached = np.concatenate(([0.0], np.cumsum(gains))) >= missing - ROUNDING * len(gains)
        reached[-1] = True  # the last tier alone is enough, however the sums are rounded
        return float(np.argmax(reached)) / len(gains)

    return {
        "random": share(np.full(len(gain), gain.mean())),
        "prompt_length": share(gain[_longest_first(outcomes)]),
        "oracle": share(np.sort(gain)[::-1]),
    }
