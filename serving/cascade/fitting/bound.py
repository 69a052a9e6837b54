"""Are means above zero? A test that holds for any number of observations and any distribution within known limits, by betting.

Whoever bets on a mean being above zero while it is not multiplies the stake by 1 / (1 - confidence), at any time, with a probability of at
most 1 - confidence (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024). How much is bet is free:
here what brings the stake to that target with the observations that are left (Voráček and Orabona, "STaR-Bets", arXiv 2505.22422).
"""

import numpy as np
from numpy.typing import NDArray

from serving.cascade.fitting.outcomes import Floats

_LARGEST_BET = 0.75
"""Of what may be lost at once."""


def are_above_zero(values: Floats, least: float, most: float, confidence: float) -> NDArray[np.bool_]:
    """By column, whether the mean of what `values` (observations, columns) are independent draws of is 0 or more, at this confidence. All
    values are within the limits."""
    num_values = len(values)
    scaled = (values - least) / (most - least)
    null = -least / (most - least)
    # Each bet knows only the draws before its own; one of variance 1/4, the largest there is, is there from the start.
    counts = np.arange(1, num_values + 1)[:, None]
    means = (0.5 + np.cumsum(scaled, axis=0)) / (counts + 1)
    variances = (0.25 + np.cumsum((scaled - means) ** 2, axis=0)) / (counts + 1)
    known = np.vstack((np.full_like(variances[:1], 0.25), variances[:-1]))
    target = -np.log(1 - confidence)
    stake = highest = np.zeros(values.shape[1])
    for index in range(num_values):
        missing = np.maximum(target - stake, 0.0)
        bet = np.minimum(np.sqrt(2 * missing / ((num_values - index) * known[index])), _LARGEST_BET / null)
        stake = stake + np.log1p(bet * (scaled[index] - null))
        highest = np.maximum(highest, stake)
    # A stake that grew early is proof enough; it would be odd all the same to believe what all observations together deny.
    return (highest >= target) & (values.mean(axis=0) >= 0)


def growth(values: Floats, least: float) -> Floats:
    """By column, the mean logarithm by which the largest bet on a mean above zero would have multiplied the stake: where it is highest, the
    fewest observations prove it. `least`, below zero: as in `are_above_zero`."""
    # That bet is this share of what may be lost, whatever the scale.
    growths: Floats = np.log1p(_LARGEST_BET * values / -least).mean(axis=0)
    return growths
