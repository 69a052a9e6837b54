"""Scores to chances: the rising step function that fits best, drawn as a line through the middle of each step.

The line keeps apart what a step would throw together (centred isotonic regression, Oron and Flournoy 2017).
"""

import numpy as np
from scipy.optimize import isotonic_regression

from serving.cascade.fitting.outcomes import Floats


def rising_line(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Where the line bends: scores, rising, and the mean label there, never falling."""
    distinct, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place)
    fitted = isotonic_regression(np.bincount(place, weights=labels) / counts, weights=counts)
    starts = fitted.blocks[:-1]
    centres = np.add.reduceat(distinct * counts, starts) / np.add.reduceat(counts, starts)
    return centres, fitted.x[starts]
