"""Is a mean above zero? A test that holds for any number of observations and any distribution within known limits, by betting.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024), section 3 and the predictable plug-in of
section 4: whoever bets on the mean being above zero, while it is not, multiplies the stake by 1/(1 - confidence) at any time with a
probability of 1 - confidence at most (Ville).
"""

import numpy as np

from serving.cascade.outcomes import Floats

_LARGEST_BET = 0.75
"""Of what may be lost at once; the paper's choices are 1/2 and 3/4."""


def is_above_zero(values: Floats, least: float, most: float, confidence: float) -> bool:
    """Whether the mean of what `values` are independent draws of is 0 or more, at this confidence. All values are within the limits."""
    num_values = len(values)
    scaled = (values - least) / (most - least)
    null = -least / (most - least)
    counts = np.arange(1, num_values + 1)
    means = (0.5 + np.cumsum(scaled)) / (counts + 1)
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (counts + 1)
    # Each bet knows only the draws before its own.
    known = np.concatenate(([0.25], variances[:-1]))
    bets = np.minimum(np.sqrt(2 * np.log(1 / (1 - confidence)) / (num_values * known)), _LARGEST_BET / null)
    wealth = np.cumsum(np.log1p(bets * (scaled - null)))
    # A stake that grew early is proof enough; it would be odd all the same to believe what all observations together deny.
    return bool(wealth.max() >= -np.log(1 - confidence) and values.mean() >= 0)
