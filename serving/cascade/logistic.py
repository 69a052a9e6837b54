"""Logistic regression with a penalty on the weights, over signals that need no scaling by the one who asks."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from serving.cascade.outcomes import Floats

_PENALTY = 10.0
"""Of the squared weights of standardised signals, as ten more observations: keeps few requests from being learned by heart."""


def fit_logistic(signals: Floats, labels: Floats) -> tuple[Floats, float]:
    """Weights of the signals as they come, and the intercept. `signals` is (requests, signals); `labels`, from 0 to 1, is (requests,)."""
    centre, spread = signals.mean(axis=0), signals.std(axis=0)
    # A signal that never changed tells nothing: standardised it is zero, and its weight stays so.
    spread = np.where(spread > 1e-12, spread, np.inf)
    standard = (signals - centre) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, intercept = parameters[:-1], parameters[-1]
        score = standard @ weights + intercept
        residual = expit(score) - labels
        value = np.logaddexp(0, score).sum() - labels @ score + _PENALTY / 2 * weights @ weights
        return float(value), np.append(standard.T @ residual + _PENALTY * weights, residual.sum())

    found = minimize(loss, np.zeros(signals.shape[1] + 1), jac=True, method="L-BFGS-B").x
    weights = found[:-1] / spread
    return weights, float(found[-1] - weights @ centre)
