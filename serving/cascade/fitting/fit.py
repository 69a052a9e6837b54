"""`tokenport cascade fit`: from outcomes to a policy that keeps what was asked for, at a confidence that holds for the number of requests.

Steps: half of the requests train the rules, name thresholds, and tell with which to begin. From that one on to less strict ones they are
tested on the other half, each at the whole confidence, until the first that fails (fixed-sequence testing: as nothing is tested after a
failure, no correction is due). Of those that passed the cheapest is taken; if none did or none saves anything, the last tier alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.cascade.fitting.bound import are_above_zero, growth
from serving.cascade.fitting.outcomes import ROUNDING, Floats, Outcomes
from serving.cascade.fitting.replay import Chances, Replay, chances, replay, with_threshold
from serving.cascade.fitting.training import Rules, keep_away_drafts_that_do_not_pay, train_stage, with_before, with_hold_tokens
from serving.cascade.policy import FittedOn, Policy, Stage
from serving.errors import CascadeError

_LEAST_REQUESTS = 4
_NUM_THRESHOLDS = 100
Runs = Mapping[float | None, Replay]
"""By the threshold, None for the last tier alone."""


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
    trained = _train(training, wish)
    stages = with_hold_tokens(trained.stages, outcomes, wish.hold_tokens)
    runs = _replayed(stages, chances(stages, calibration), (None, *trained.thresholds), calibration)
    bounded = _cheapest(runs, _passed(runs, trained.thresholds[trained.first_to_test :], calibration, wish))
    naive = _cheapest(runs, _kept(runs, trained.thresholds, calibration, wish))
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


@dataclass(frozen=True)
class _Trained:
    """The stages, but for the threshold of the rules that decide; the thresholds to try for it, strictest first, and the index of the one
    to test first."""

    stages: Sequence[Stage]
    thresholds: Sequence[float]
    first_to_test: int


def _train(training: Outcomes, wish: Wish) -> _Trained:
    stages = [train_stage(training, tier, wish.rules) for tier in training.tiers[:-1]]
    said = chances(stages, training)
    deciding = [chance.before if stage.after is None else chance.after for stage, chance in zip(stages, said, strict=True)]
    thresholds = np.unique(np.quantile(np.concatenate(deciding), np.arange(_NUM_THRESHOLDS) / _NUM_THRESHOLDS))[::-1].tolist()
    if wish.rules == "both":
        opened = [with_before(stage, 0.0) for stage in stages]
        runs = _replayed(opened, said, thresholds, training)
        usual = min(_kept(runs, thresholds, training, wish), default=thresholds[0])
        stages = [keep_away_drafts_that_do_not_pay(stage, chance, usual, training) for stage, chance in zip(opened, said, strict=True)]
    return _Trained(stages, thresholds, _first_to_test(_replayed(stages, said, thresholds, training), thresholds, training, wish))


def _first_to_test(runs: Runs, thresholds: Sequence[float], training: Outcomes, wish: Wish) -> int:
    """The strictest, where so many requests prove of the last tier alone that it is good enough. Where they do not, as there are few or
    1 - quality is next to nothing, the few answers of a smaller tier prove nothing either, but many may, if it is the better one: then the
    threshold that is the easiest to prove."""
    alone = (1 - wish.quality) * training.quality[:, -1:]
    if are_above_zero(alone, -wish.quality, 1.0, wish.confidence).all():
        return 0
    return int(np.argmax(growth(_surplus(runs, thresholds, training, wish), -wish.quality)))


def _replayed(stages: Sequence[Stage], said: Sequence[Chances], thresholds: Sequence[float | None], outcomes: Outcomes) -> Runs:
    return {each: replay(with_threshold(stages, each), said, outcomes) for each in thresholds}


def _surplus(runs: Runs, thresholds: Sequence[float], outcomes: Outcomes, wish: Wish) -> Floats:
    """By request and threshold, what is left over of the quality asked for: from -`quality` to 1."""
    return np.stack([runs[each].quality for each in thresholds], axis=1) - wish.quality * outcomes.quality[:, -1:]


def _passed(runs: Runs, thresholds: Sequence[float], outcomes: Outcomes, wish: Wish) -> list[float]:
    """Those before the first that fails."""
    holds = are_above_zero(_surplus(runs, thresholds, outcomes, wish), -wish.quality, 1.0, wish.confidence)
    return [each for each, is_passed in zip(thresholds, np.logical_and.accumulate(holds), strict=True) if is_passed]


def _kept(runs: Runs, thresholds: Sequence[float], outcomes: Outcomes, wish: Wish) -> list[float]:
    means = _surplus(runs, thresholds, outcomes, wish).mean(axis=0)
    return [each for each, mean in zip(thresholds, means, strict=True) if mean >= -ROUNDING]


def _cheapest(runs: Runs, thresholds: Sequence[float]) -> float | None:
    """Also None, the last tier alone, counts: rejected drafts may cost more than they save."""
    return min((None, *thresholds), key=lambda each: float(runs[each].cost.mean()))
