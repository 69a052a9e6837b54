import dataclasses

import numpy as np
import pytest

from serving.cascade.fitting.evaluate import evaluate
from serving.cascade.fitting.fit import Wish, fit
from serving.cascade.fitting.outcomes import Outcomes
from serving.cascade.policy import FittedOn, Policy, Rule, Stage
from serving.errors import CascadeError
from tests.unit.cascade.outcome_files import draw, true_quality_ratio

FITTED_ON = FittedOn("elsewhere", 8, 4, 4, 0.8, 0.9, 0, 0.25)
MARGIN = Rule({"margin_mean": 1.0}, 0.0, (0.5, 1.0), (0.0, 1.0), threshold=0.5)
"""Accepts margins of 1.1 and more; with the naive threshold 0.25, of 0.51 and more."""
POLICY = Policy((Stage("small", None, MARGIN, 8),), "large", FITTED_ON, {})
OUTCOMES = Outcomes(
    messages=tuple(({"role": "user", "content": "x" * length},) for length in (4, 3, 2, 1)),
    tiers=("large", "small"),
    quality=np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]),
    cost=np.array([[10.0, 1.0], [10.0, 1.0], [10.0, 1.0], [10.0, 1.0]]),
    signals={"small": {"margin_mean": np.array([1.5, 0.2, 0.7, 1.2])}, "large": {}},
    sha256="here",
    assumed_order=True,
)


def test_four_requests_by_hand():
    found = evaluate(POLICY, OUTCOMES)
    assert found.target == pytest.approx(0.8 * 0.875)
    lines = {"policy": found.policy, "naive": found.naive, **found.baselines}
    expected = {  # quality, cost, to the large tier
        "policy": ((1 + 1 + 1 + 0.5) / 4, (1 + 11 + 11 + 1) / 4, 0.5),
        "naive": ((1 + 1 + 0 + 0.5) / 4, (1 + 11 + 1 + 1) / 4, 0.25),
        "small": ((1 + 0 + 0 + 0.5) / 4, 1, 0),
        "large": (0.875, 10, 1),
        "random": ((0.375 + 0.875) / 2, 5.5, 0.5),
        "prompt_length": ((1 + 1 + 0 + 0.5) / 4, 5.5, 0.5),
        "oracle": (0.875, (1 + 10 + 10 + 1) / 4, 0.5),
    }
    for name, line in lines.items():
        assert (line.quality, line.cost, line.share_large) == pytest.approx(expected[name]), name
    assert {name for name, line in lines.items() if line.target_met} == {"policy", "large", "oracle"}
    assert found.policy.quality_ratio == pytest.approx(1.0)
    assert found.policy.saving == pytest.approx(1 - 6 / 10)
    # Of the missing 0.325 a request each large answer by lot brings 0.125; the longest prompts bring 0, 1, 1; the best 1, 1.
    assert found.share_needed == {"random": 0.75, "prompt_length": 0.75, "oracle": 0.5}
    assert found.is_held_out


def test_a_random_share_is_found_to_the_last_request():
    assert evaluate(POLICY, dataclasses.replace(OUTCOMES, quality=np.tile([1.0, 0.0], (4, 1)))).share_needed["random"] == 1.0


def test_all_of_the_quality_takes_all_that_the_large_tier_does_better_however_sums_are_rounded():
    quality = np.sort(np.random.default_rng(0).random((5000, 2)))  # the large tier is better on each
    outcomes = dataclasses.replace(draw(5000, 0), quality=quality)
    policy = dataclasses.replace(POLICY, fitted_on=dataclasses.replace(FITTED_ON, quality=1.0))
    assert evaluate(policy, outcomes).share_needed == pytest.approx({"random": 1.0, "prompt_length": 1.0, "oracle": 1.0}, abs=1e-3)


def test_no_policy_beats_the_oracle_and_none_costs_less_than_its_cheapest_tier():
    for seed in range(5):
        found = evaluate(fit(draw(400, seed), Wish(0.9, 0.8), {}).policy, draw(1000, 100 + seed))
        lines = [found.policy, found.naive, *found.baselines.values()]
        assert found.baselines["oracle"].quality == max(line.quality for line in lines)
        assert found.baselines["small"].cost == min(line.cost for line in lines)
        assert found.baselines["random"].share_large == pytest.approx(found.policy.share_large)
        assert found.policy.quality > found.baselines["random"].quality  # the signal is worth something


def test_intervals_cover_the_truth_as_often_as_they_say():
    policy = fit(draw(1000, 0), Wish(0.95, 0.9), {}).policy
    truth = true_quality_ratio(policy)
    intervals = [evaluate(policy, draw(300, seed)).policy.quality_ratio_interval for seed in range(1, 61)]
    assert np.mean([low <= truth <= high for low, high in intervals]) > 0.85


def test_the_outcomes_of_the_fit_are_recognised():
    outcomes = draw(400, 0)
    policy = fit(outcomes, Wish(0.95, 0.9), {}).policy
    assert not evaluate(policy, outcomes).is_held_out
    assert evaluate(policy, draw(400, 1)).is_held_out


def test_the_same_seed_gives_the_same_intervals():
    assert evaluate(POLICY, OUTCOMES, seed=1) == evaluate(POLICY, OUTCOMES, seed=1)
    assert evaluate(POLICY, OUTCOMES, seed=1).policy.quality_interval[0] < 0.875


def test_outcomes_of_other_tiers_are_refused():
    with pytest.raises(CascadeError, match="the policy is for the tiers small, large; the outcomes are of a, b"):
        evaluate(POLICY, dataclasses.replace(OUTCOMES, tiers=("a", "b")))
