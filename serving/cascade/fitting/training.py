"""The rules of a policy, trained on outcomes: which signals speak for a tier, and from when on a draft of it is worth its price.

A rule learns the label (1 + quality - the last tier's quality) / 2, which is 1 where the tier alone is right, 0 where the last tier alone
is, and 1/2 where it makes no difference: the order of this is the order in which requests are best given to the tier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

from serving.cascade.fitting.isotonic import rising_line
from serving.cascade.fitting.logistic import fit_logistic
from serving.cascade.fitting.outcomes import Floats, Outcomes
from serving.cascade.fitting.replay import Chances
from serving.cascade.policy import Rule, Stage
from serving.errors import CascadeError

Rules = Literal["auto", "before", "after", "both"]
"""Which rules a stage gets. `auto`: `after` where the tier has signals, `before` where it has none."""
RULES: tuple[Rules, ...] = get_args(Rules)
DEFAULT_HOLD_TOKENS = 32
NUM_TOKENS = "num_tokens"
"""The signal that says how many tokens the others were read from."""


def train_stage(training: Outcomes, tier: str, rules: Rules) -> Stage:
    """A stage whose rules have no thresholds yet, and that holds no tokens yet.

    Raises:
        CascadeError: the rules do not go with the signals that the outcomes have of the tier.
    """
    index, signals = training.tiers.index(tier), training.signals[tier]
    if rules == "auto":
        rules = "after" if signals else "before"
    if rules != "before" and not signals:
        raise CascadeError(f"--rules {rules}: the outcomes have no signals of the tier {tier!r}; --rules before needs none")
    better = (1 + training.quality[:, index] - training.quality[:, -1]) / 2
    features = {name: np.array([row[name] for row in training.features]) for name in training.features[0]}
    if clash := sorted(features.keys() & signals.keys()):
        raise CascadeError(f"signals of the tier {tier!r} have names of what is told of requests: {', '.join(clash)}; name them otherwise")
    return Stage(
        tier,
        before=None if rules == "after" else _train(features, better),
        after=None if rules == "before" else _train({**features, **signals}, better),
        hold_tokens=0,
    )


def with_hold_tokens(stages: Sequence[Stage], outcomes: Outcomes, wished: int | None) -> list[Stage]:
    """The stages with as many tokens to hold as their signals are of, in all outcomes: a server that holds fewer judges other signals.
    `wished`: None for what the outcomes say.

    Raises:
        CascadeError: fewer are wished, or no stage holds any.
    """
    if wished is not None and all(stage.after is None for stage in stages):
        raise CascadeError(f"--hold-tokens {wished}: nothing is held, as only the requests are judged")
    return [stage if stage.after is None else _holding(stage, outcomes.signals[stage.tier], wished) for stage in stages]


def keep_away_drafts_that_do_not_pay(stage: Stage, said: Chances, threshold: float, training: Outcomes) -> Stage:
    """For a stage with both rules: `before` lets through from where on drafts are kept often enough, with `threshold` on `after`, to make
    up for what they cost: the tier's price by the next tier's."""
    tier = training.tiers.index(stage.tier)
    price_ratio = training.cost[:, tier].sum() / max(training.cost[:, tier + 1].sum(), np.finfo(float).tiny)
    chances, kept = rising_line(said.before, (said.after >= threshold).astype(float))
    pays = np.flatnonzero(kept >= price_ratio)
    if not len(pays):
        return with_before(stage, float(chances[-1]))  # none do; these are the most promising
    # The line is flat before its first point: where that pays, so does everything.
    return with_before(stage, float(chances[pays[0]]) if pays[0] > 0 else 0.0)


def with_before(stage: Stage, threshold: float) -> Stage:
    """The stage with this threshold on its `before` rule, if it has one."""
    return stage if stage.before is None else replace(stage, before=replace(stage.before, threshold=threshold))


def _train(signals: Mapping[str, Floats], labels: Floats) -> Rule:
    matrix = np.stack(list(signals.values()), axis=1)
    weights, intercept = fit_logistic(matrix, labels)
    steps, levels = rising_line(expit(matrix @ weights + intercept), labels)
    kept = {name: float(weight) for name, weight in zip(signals, weights, strict=True) if weight != 0}
    return Rule(kept, intercept, tuple(steps.tolist()), tuple(levels.tolist()), threshold=None)


def _holding(stage: Stage, signals: Mapping[str, Floats], wished: int | None) -> Stage:
    if NUM_TOKENS not in signals:
        return replace(stage, hold_tokens=wished or DEFAULT_HOLD_TOKENS)
    seen = max(1, int(signals[NUM_TOKENS].max()))
    if wished is not None and wished < seen:
        raise CascadeError(
            f"--hold-tokens {wished}: the signals of {stage.tier!r} are of up to {seen} tokens; hold as many, or collect anew"
        )
    return replace(stage, hold_tokens=wished or seen)
