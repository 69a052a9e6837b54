"""When a tier's answer will do: rules fitted by `tokenport cascade fit`, written as JSON, read by the server. Pure arithmetic, no I/O.

A rule makes of named signals one score, maps it to the chance that the answer is good enough, and compares that with a threshold.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp


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
        """That the answer is good enough. Raises KeyError for a signal that is not there."""
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


@dataclass(frozen=True)
class Stage:
    """What is asked of one tier, every one but the last: `before` it generates, of `request_features`; `after`, of these and the
    `token_signals` of its own tokens together, of which at most `hold_tokens` are looked at before the answer is let go (0 without
    `after`). Either may be missing, not both."""

    tier: str
    before: Rule | None
    after: Rule | None
    hold_tokens: int


@dataclass(frozen=True)
class Policy:
    """`stages` from the smallest tier on: the first whose rules accept answers, otherwise `last_tier`. `fitted_on`: facts of the fit (hash
    of the outcome file, number of requests, quality, confidence). `valid_for`: what it holds for, as `TIER.model`, `TIER.chat_template`,
    `TIER.sampling` -> the hash that `identity.py` makes; a server that finds others refuses it."""

    stages: tuple[Stage, ...]
    last_tier: str
    fitted_on: Mapping[str, str | float | int | None]
    valid_for: Mapping[str, str]
