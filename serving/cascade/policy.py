"""When a tier's answer will do: rules fitted by `tokenport cascade fit`, written as JSON, read by the server. Pure arithmetic, no I/O.

A rule makes of named signals one score, maps it to the chance that the answer is good enough, and compares that with a threshold.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp


@dataclass(frozen=True)
class Rule:
    """`weights` by the signal's name, over signals as they come (no scaling besides). The score's logistic goes through a rising step
    function: at `steps[i]` and above it is `levels[i]`. What reaches `threshold` is accepted."""

    weights: Mapping[str, float]
    intercept: float
    steps: tuple[float, ...]
    levels: tuple[float, ...]
    threshold: float

    def chance(self, signals: Mapping[str, float]) -> float:
        """That the answer is good enough. Raises KeyError for a signal that is not there."""
        score = self.intercept + sum(weight * signals[name] for name, weight in self.weights.items())
        logistic = 1 / (1 + exp(-max(-60.0, min(60.0, score))))
        return self.levels[max(0, bisect_right(self.steps, logistic) - 1)]

    def accepts(self, signals: Mapping[str, float]) -> bool:
        """Whether the tier may answer, or its answer may stand."""
        return self.chance(signals) >= self.threshold


@dataclass(frozen=True)
class Stage:
    """What is asked of one tier, every one but the last: `before` it generates, of the request's features; `after`, of its own tokens, of
    which at most `hold_tokens` are looked at before the answer is let go. Either may be missing, not both."""

    tier: str
    before: Rule | None
    after: Rule | None
    hold_tokens: int


@dataclass(frozen=True)
class Policy:
    """`stages` from the smallest tier on; the last tier of a cascade has none. `fitted_on`: facts of the fit (hash of the outcome file,
    number of requests, quality, confidence). `valid_for`: hashes of the models, chat template and sampling that it holds for, by name; a
    server that finds others refuses it."""

    stages: tuple[Stage, ...]
    fitted_on: Mapping[str, str | float | int]
    valid_for: Mapping[str, str]
