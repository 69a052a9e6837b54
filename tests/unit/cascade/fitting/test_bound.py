import numpy as np
import pytest

from serving.cascade.fitting.bound import are_above_zero, growth
from serving.cascade.fitting.fit import Wish, fit
from tests.unit.cascade.outcome_files import draw, true_quality_ratio

CONFIDENCE = 0.9


def test_a_mean_of_zero_is_taken_for_more_no_oftener_than_the_confidence_allows():
    # Surplus as a fit sees it: mostly a little is left over, now and then nearly everything is lost.
    random = np.random.default_rng(0)
    lost = 0.05
    values = np.where(random.random((2000, 400)) < lost, -0.95, 0.05)
    mean = 0.05 * (1 - lost) - 0.95 * lost
    assert mean == pytest.approx(0.0)
    accepted = are_above_zero(values.T, -0.95, 1.0, CONFIDENCE).mean()
    assert accepted <= 1 - CONFIDENCE + 2 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / len(values))
    assert accepted > 0.01  # a bound that never accepts would pass too


def test_a_mean_well_above_zero_is_found():
    values = np.random.default_rng(0).choice([-0.95, 0.05, 1.0], p=[0.02, 0.9, 0.08], size=(400, 1))
    assert are_above_zero(values, -0.95, 1.0, CONFIDENCE).all()


def test_with_few_observations_nothing_is_believed():
    assert not are_above_zero(np.full((20, 1), 0.05), -0.95, 1.0, CONFIDENCE).any()


def test_growth_says_about_how_many_observations_prove_a_mean_above_zero():
    def surplus(num):
        return np.full((num, 1), 0.05)

    needed = int(-np.log(1 - CONFIDENCE) / growth(surplus(1), -0.95)[0])  # at the largest bet each time; near the target they are smaller
    assert not are_above_zero(surplus(needed), -0.95, 1.0, CONFIDENCE)
    assert are_above_zero(surplus(needed + 3), -0.95, 1.0, CONFIDENCE)


def test_the_bounded_policy_keeps_its_promise_and_the_naive_one_is_a_coin_flip():
    num_fits, wish = 200, Wish(quality=0.95, confidence=CONFIDENCE)
    policies = [fit(draw(400, seed), wish, {}).policy for seed in range(num_fits)]
    bounded = np.array([true_quality_ratio(policy) for policy in policies]) >= wish.quality
    naive = np.array([true_quality_ratio(policy, naive=True) for policy in policies]) >= wish.quality
    slack = 2 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / num_fits)
    assert bounded.mean() >= CONFIDENCE - slack
    assert 0.3 < naive.mean() < 0.75
    # Nor does it keep its promise by sending everything to the large tier.
    assert np.mean([policy.stages[0].can_answer for policy in policies]) > 0.9
