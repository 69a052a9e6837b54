import numpy as np
import pytest
from scipy.special import expit

from serving.cascade.fitting.logistic import fit_logistic


def test_the_weights_of_the_truth_are_found_on_signals_of_any_scale():
    random = np.random.default_rng(0)
    signals = random.normal(size=(20_000, 2)) * [1000.0, 0.001] + [5000.0, 0.0]
    labels = (random.random(20_000) < expit((signals - [5000.0, 0.0]) @ [0.001, -2000.0] + 0.5)).astype(float)
    weights, intercept = fit_logistic(signals, labels)
    assert weights == pytest.approx([0.001, -2000.0], rel=0.1)
    assert intercept + weights[0] * 5000 == pytest.approx(0.5, abs=0.1)


def test_a_signal_that_never_changes_gets_no_weight():
    weights, _ = fit_logistic(np.array([[1.0, 7.0], [0.0, 7.0], [1.0, 7.0]]), np.array([1.0, 0.0, 1.0]))
    assert weights[1] == 0
    assert weights[0] > 0


def test_a_signal_counts_whatever_its_unit():
    signals = np.random.default_rng(0).normal(size=(200, 1))
    labels = (signals[:, 0] > 0).astype(float)
    assert fit_logistic(signals * 1e-15, labels)[0] * 1e-15 == pytest.approx(fit_logistic(signals, labels)[0])


def test_few_requests_that_are_all_alike_are_not_believed_without_limit():
    weights, _ = fit_logistic(np.array([[0.0], [1.0]]), np.array([0.0, 1.0]))
    assert 0 < weights[0] < 1
