"""The smallest of several models that is good enough at a task, by the user's own evaluation of them.

A model is good enough if the lower confidence bound of its mean score is. The confidence is that of the pick: each of k models is held to
1 - (1 - confidence) / k, so that picking among them does not weaken it (Bonferroni). Scores of 0 and 1 have Clopper and Pearson's exact
bound, others in between the bound of Hoeffding (1963, theorem 1, in its Kullback-Leibler form), which needs the mean and the number alone.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import beta

from serving.errors import PlanError


@dataclass(frozen=True)
class Candidate:
    """One model: `size` in the unit by which all are ordered; `num_right` where every score is 0 or 1, else None."""

    name: str
    size: float
    mean: float
    num_examples: int
    num_right: int | None


@dataclass(frozen=True)
class Judged:
    """A candidate with the lower bound of its mean score, and whether that is enough."""

    candidate: Candidate
    lower_bound: float
    holds: bool


def pick(candidates: Sequence[Candidate], at_least: float, confidence: float) -> tuple[Judged, list[Judged]]:
    """The smallest that holds, and the smaller ones, which do not. Of equally small ones that with the highest bound goes first.

    Raises:
        PlanError: none holds; names the one that comes nearest.
    """
    error_of_each = (1 - confidence) / len(candidates)
    bounds = [(candidate, lower_bound(candidate, error_of_each)) for candidate in candidates]
    judged = [Judged(candidate, bound, bound >= at_least) for candidate, bound in bounds]
    judged.sort(key=lambda one: (one.candidate.size, -one.lower_bound, one.candidate.name))
    first = next((index for index, one in enumerate(judged) if one.holds), None)
    if first is not None:
        return judged[first], judged[:first]
    best = max(judged, key=lambda one: one.lower_bound)
    raise PlanError(
        f"no model holds {at_least:g} at {percent(confidence)} confidence; {best.candidate.name} comes nearest: {describe(best)}. "
        "Evaluate larger models, or more examples"
    )


def describe(judged: Judged) -> str:
    """A candidate's figures in words."""
    one = judged.candidate
    return f"mean {one.mean:.3f} of {one.num_examples} examples, lower bound {judged.lower_bound:.3f}"


def percent(share: float) -> str:
    """99.9 % is not 100 %."""
    return f"{share * 100:.10g}%"


def lower_bound(candidate: Candidate, error: float) -> float:
    """What the mean score is above, but for a chance of `error` at most."""
    if candidate.num_right is not None:
        return clopper_pearson(candidate.num_right, candidate.num_examples, error)
    return hoeffding(candidate.mean, candidate.num_examples, error)


def clopper_pearson(num_right: int, num_examples: int, error: float) -> float:
    """The exact lower bound of a share."""
    return float(beta.ppf(error, num_right, num_examples - num_right + 1)) if num_right else 0.0


def hoeffding(mean: float, num_examples: int, error: float) -> float:
    """The lower bound of the mean of values between 0 and 1."""
    limit = math.log(1 / error) / num_examples
    # The divergence falls from infinity at 0 to nothing at the mean, and is above the limit here.
    least = math.exp(-(limit + math.log(2)) / mean) if mean else 0.0
    if least < sys.float_info.min:
        return 0.0
    return float(brentq(lambda below: _divergence(mean, below) - limit, least, mean))


def _divergence(mean: float, below: float) -> float:
    """Kullback and Leibler's, of two coins."""
    tail = (1 - mean) * math.log((1 - mean) / (1 - below)) if mean < 1 else 0.0
    return mean * math.log(mean / below) + tail
