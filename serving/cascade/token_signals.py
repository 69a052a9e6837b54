"""How sure a model was of the first tokens of its answer: names and numbers for the `after` rules of a policy. Pure arithmetic.

Sums and means of log-probabilities favour short answers (Gupta et al. 2024, "Language Model Cascades: Token-level uncertainty and
beyond"), therefore there are quantiles, and a sum divided by a power of the length (Wu et al. 2016).
"""

from collections.abc import Sequence
from math import exp, log
from statistics import fmean

NAMES = (
    "num_tokens",
    "logprob_mean",
    "logprob_min",
    "logprob_q10",
    "logprob_corrected_sum",
    "margin_mean",
    "margin_min",
    "margin_q10",
    "entropy_mean",
    "entropy_max",
)
"""Every name that `token_signals` gives, always all of them."""
LEAST_LOGPROB = -100.0
"""What a log-probability is at least: some engines send minus infinity for what they never would have said."""
_QUANTILE = 0.1
_LENGTH_POWER = 0.6

Token = tuple[float, Sequence[float]]
"""The log-probability of the token that was chosen; those of the most probable tokens at its place, two or more."""


def token_signals(tokens: Sequence[Token]) -> dict[str, float]:
    """Signals of the first tokens of an answer. Probabilities are natural logarithms.

    margin: probability of the most probable token less that of the second. entropy: over the most probable tokens and one that stands
    for all others, in nats. q10: the lowest tenth, interpolated.

    Raises:
        ValueError: no tokens, or one without two alternatives: the engine was not asked for `top_logprobs` 2.
    """
    if not tokens:
        raise ValueError("an answer without tokens has no signals")
    chosen, margins, entropies = [], [], []
    for place, (logprob, alternatives) in enumerate(tokens):
        if len(alternatives) < 2:
            raise ValueError(f"token {place} has {len(alternatives)} alternatives; ask the engine for top_logprobs 2")
        chosen.append(_bounded(logprob))
        probabilities = sorted((exp(_bounded(each)) for each in alternatives), reverse=True)
        margins.append(probabilities[0] - probabilities[1])
        entropies.append(_entropy(probabilities))
    return {
        "num_tokens": float(len(tokens)),
        "logprob_mean": fmean(chosen),
        "logprob_min": min(chosen),
        "logprob_q10": _quantile(chosen),
        "logprob_corrected_sum": sum(chosen) / len(chosen) ** _LENGTH_POWER,
        "margin_mean": fmean(margins),
        "margin_min": min(margins),
        "margin_q10": _quantile(margins),
        "entropy_mean": fmean(entropies),
        "entropy_max": max(entropies),
    }


def _bounded(logprob: float) -> float:
    return min(0.0, max(LEAST_LOGPROB, logprob))


def _entropy(probabilities: Sequence[float]) -> float:
    rest = 1.0 - sum(probabilities)
    return -sum(each * log(each) for each in (*probabilities, rest) if each > 0)


def _quantile(values: Sequence[float]) -> float:
    ordered = sorted(values)
    place = _QUANTILE * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
