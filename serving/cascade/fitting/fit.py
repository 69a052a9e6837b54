"""`tokenport cascade fit`: from outcomes to a policy that keeps what was asked for, at a confidence that holds for the number of requests.

Steps: half of the requests train the rules and name the thresholds to try; on the other half these are tested from the strictest on, each
at the whole confidence, until the first that fails (fixed-sequence testing: as nothing is tested after a failure, no correction is due).
Of those that passed the cheapest is taken; if none passed, or none saves anything against the last tier alone, that answers everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.cascade.fitting.bound import are_above_zero
from serving.cascade.fitting.outcomes import Floats, Outcomes
from serving.cascade.fitting.replay import Replay, chances, replay, with_threshold
from serving.cascade.fitting.training import Rules, keep_away_drafts_that_do_not_pay, train_stage, with_before, with_hold_tokens
from serving.cascade.policy import FittedOn, Policy, Stage
from serving.errors import CascadeError

_LEAST_REQUESTS = 4
_NUM_THRESHOLDS = 100


@dataclass(frozen=True)
class Wish:
    """What is asked for: `quality`, as a share of the last tier's mean quality, to be kept at `confidence`."""

    quality: float
    confidence: float
    rules: Rules = "auto"
    hold_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """The policy, and what it came to on the half on which its threshold was chosen; `naive`: with the cheapest threshold that keeps the
    quality on this half, as if that were the truth; `alone`: with the last tier for everything."""

    policy: Policy
    calibration: Outcomes
    bounded: Replay
    naive: Replay
    alone: Replay


def fit(outcomes: Outcomes, wish: Wish, valid_for: Mapping[str, str]) -> Fitted:
    """Fit a policy for the tiers of the outcomes.

    Raises:
        CascadeError: there are too few requests, or rules or tokens are asked for that do not go with the signals of the outcomes.
    """
    if len(outcomes) < _LEAST_REQUESTS:
        raise CascadeError(f"{len(outcomes)} requests cannot be halved to train and to calibrate: expected {_LEAST_REQUESTS} at least")
    shuffled = np.random.default_rng(wish.seed).permutation(len(outcomes))
    training, calibration = (outcomes.take(rows) for rows in np.array_split(shuffled, 2))
    trained, thresholds = _train(training, wish)
    stages = with_hold_tokens(trained, outcomes, wish.hold_tokens)
    said = chances(stages, calibration)
    runs = {each: replay(with_threshold(stages, each), said, calibration) for each in (None, *thresholds)}
    bounded = _cheapest(runs, _passed(runs, thresholds, calibration, wish))
    naive = _cheapest(runs, _kept(runs, thresholds, calibration, wish))
    fitted_on = FittedOn(
        outcomes_sha256=outcomes.sha256,
        num_requests=len(outcomes),
        num_training=len(training),
        num_calibration=len(calibration),
        quality=wish.quality,
        confidence=wish.confidence,
        seed=wish.seed,
        naive_threshold=naive,
    )
    policy = Policy(with_threshold(stages, bounded), outcomes.tiers[-1], fitted_on, dict(valid_for))
    return Fitted(policy, calibration, runs[bounded], runs[naive], runs[None])


def _train(training: Outcomes, wish: Wish) -> tuple[Sequence[Stage], Sequence[float]]:
    """The stages, but for the threshold of the rules that decide, and the thresholds to try for it, strictest first."""
    stages = [train_stage(training, tier, wish.rules) for tier in training.tiers[:-1]]
    said = chances(stages, training)
    deciding = [chance.before if stage.after is None else chance.after for stage, chance in zip(stages, said, strict=True)]
    thresholds = np.unique(np.quantile(np.concatenate(deciding), np.arange(_NUM_THRESHOLDS) / _NUM_THRESHOLDS))[::-1].tolist()
    if wish.rules == "both":
        opened = [with_before(stage, 0.0) for stage in stages]
        runs = {each: replay(with_threshold(opened, each), said, training) for each in thresholds}
        usual = min(_kept(runs, thresholds, training, wish), default=thresholds[0])
        stages = [keep_away_drafts_that_do_not_pay(stage, chance, usual, training) for stage, chance in zip(opened, said, strict=True)]
    return stages, thresholds


def _surplus(run: Replay, outcomes: Outcomes, quality: float) -> Floats:
    """By request, what is left over of the quality asked for: from -`quality` to 1."""
    return run.quality - quality * outcomes.quality[:, -1]


def _passed(runs: Mapping[float | None, Replay], thresholds: Sequence[float], outcomes: Outcomes, wish: Wish) -> list[float]:
    """Those before the first that fails."""
    surplus = np.stack([_surplus(runs[each], outcomes, wish.quality) for each in thresholds], axis=1)
    holds = are_above_zero(surplus, -wish.quality, 1.0, wish.confidence)
    return [each for each, is_passed in zip(thresholds, np.logical_and.accumulate(holds), strict=True) if is_passed]


def _kept(runs: Mapping[float | None, Replay], thresholds: Sequence[float], outcomes: Outcomes, wish: Wish) -> list[float]:
    return [each for each in thresholds if _surplus(runs[each], outcomes, wish.quality).mean() >= 0]


def _cheapest(runs: Mapping[float | None, Replay], thresholds: Sequence[float]) -> float | None:
    """Also None, the last tier alone, counts: rejected drafts may cost more than they save."""
    return min((None, *thresholds), key=lambda each: float(runs[each].cost.mean()))
