"""When a tier's answer will do: rules fitted by `tokenport cascade fit`, written as JSON, read by the server. Pure arithmetic, no I/O.

A rule makes of named signals one score, maps it to a chance, and compares that with a threshold. The chance is that the tier's answer is
better than the last tier's, where as good counts half: 0.5 for an answer that is always the same.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from pydantic import ConfigDict, with_config

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `policy_file.py`, which reads them."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Rule:
    """`weights` by the signal's name, over signals as they come (no scaling besides). The score's logistic is read off the rising line
    through (`steps[i]`, `levels[i]`), flat before the first and after the last. What reaches `threshold` is accepted; None accepts
    nothing: no threshold kept what was asked for."""

    weights: Mapping[str, float]
    intercept: float
    steps: tuple[float, ...]
    levels: tuple[float, ...]
    threshold: float | None

    def chance(self, signals: Mapping[str, float]) -> float:
        """That the answer is better than the last tier's, as good counting half. Raises KeyError for a signal that is not there."""
        score = self.intercept + sum(weight * signals[name] for name, weight in self.weights.items())
        logistic = 1 / (1 + exp(-max(-60.0, min(60.0, score))))
        above = bisect_right(self.steps, logistic)
        if above in (0, len(self.steps)):
            return self.levels[max(0, above - 1)]
        left, right = self.steps[above - 1], self.steps[above]
        share = (logistic - left) / (right - left)
        return self.levels[above - 1] + share * (self.levels[above] - self.levels[above - 1])

    def accepts(self, signals: Mapping[str, float]) -> bool:
        """Whether the tier may answer, or its answer may stand."""
        return self.threshold is not None and self.chance(signals) >= self.threshold


@with_config(_STRICT)
@dataclass(frozen=True)
class Stage:
    """What is asked of one tier, every one but the last: `before` it generates, of `request_features`; `after`, of these and the
    `token_signals` of its own tokens together, of which at most `hold_tokens` are looked at before the answer is let go (0 without
    `after`). Either may be missing, not both."""

    tier: str
    before: Rule | None
    after: Rule | None
    hold_tokens: int

    @property
    def can_answer(self) -> bool:
        """False where a rule accepts nothing whatever the signals: the tier is not asked, as nothing of it would be kept."""
        return all(rule.threshold is not None for rule in (self.before, self.after) if rule is not None)


@with_config(_STRICT)
@dataclass(frozen=True)
class FittedOn:
    """Where a policy comes from: the outcome file and how its requests were divided, what was asked for, and the threshold that a fit
    without a bound would have taken (None: none)."""

    outcomes_sha256: str
    num_requests: int
    num_training: int
    num_calibration: int
    quality: float
    confidence: float
    seed: int
    naive_threshold: float | None


@with_config(_STRICT)
@dataclass(frozen=True)
class Policy:
    """`stages` from the smallest tier on: the first whose rules accept answers, otherwise `last_tier`. `valid_for`: what it holds for, as
    `TIER.model`, `TIER.chat_template`, `TIER.sampling` -> the hash that `identity.py` makes; a server that finds others refuses it."""

    stages: tuple[Stage, ...]
    last_tier: str
    fitted_on: FittedOn
    valid_for: Mapping[str, str]
