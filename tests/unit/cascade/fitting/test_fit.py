import dataclasses

import numpy as np
import pytest

from serving.cascade.fitting.fit import Wish, fit
from serving.cascade.fitting.outcomes import Outcomes
from serving.errors import CascadeError
from tests.unit.cascade.outcome_files import LARGE_RIGHT, SIGNALS, SMALL_RIGHT, draw

WISH = Wish(quality=0.95, confidence=0.9)


def share_large(run):
    return float((run.answered == run.answered.max()).mean())


def test_the_same_outcomes_and_seed_give_the_same_policy():
    assert fit(draw(400, 1), WISH, {}).policy == fit(draw(400, 1), WISH, {}).policy
    assert fit(draw(400, 1), WISH, {}).policy != fit(draw(400, 1), dataclasses.replace(WISH, seed=1), {}).policy


def test_the_bound_is_paid_with_requests_to_the_large_tier_and_less_with_more_outcomes():
    def price_of_the_bound(num):
        fits = [fit(draw(num, seed), WISH, {}) for seed in range(4)]
        return np.mean([share_large(each.bounded) - share_large(each.naive) for each in fits])

    few, many = price_of_the_bound(400), price_of_the_bound(2500)
    assert 0 < many < few


def test_more_confidence_sends_more_to_the_large_tier():
    outcomes = draw(2000, 3)
    shares = [share_large(fit(outcomes, dataclasses.replace(WISH, confidence=each), {}).bounded) for each in (0.6, 0.9, 0.99)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_a_small_tier_that_is_the_better_one_is_found_to_be_also_where_nothing_may_be_lost():
    costs = []
    for seed in range(5):
        outcomes = draw(600, seed)
        chances = np.stack([0.85 + 0.1 * outcomes.signals["small"]["margin_mean"], np.full(600, 0.65)], axis=1)
        better = dataclasses.replace(outcomes, quality=(np.random.default_rng(seed).random((600, 2)) < chances).astype(float))
        costs.append(fit(better, dataclasses.replace(WISH, quality=1.0), {}).bounded.cost.mean())
    assert np.mean(costs) < 0.2  # the small tier alone: 0.1


def test_a_threshold_that_keeps_the_quality_to_the_last_answer_keeps_it_however_sums_are_rounded():
    outcomes = draw(20, 0)
    quality = np.ones((20, 2))
    quality[np.random.default_rng(0).permutation(20)[-1], 0] = 0  # one of the ten that calibrate: 9 * (1 - 0.9) - 0.9 is a little below 0
    policy = fit(dataclasses.replace(outcomes, quality=quality), dataclasses.replace(WISH, quality=0.9), {}).policy
    assert policy.fitted_on.naive_threshold == 0.5


def test_from_too_few_requests_everything_goes_to_the_large_tier():
    fitted = fit(draw(60, 4), WISH, {})
    assert not fitted.policy.stages[0].can_answer
    assert share_large(fitted.bounded) == 1
    assert fitted.policy.fitted_on.naive_threshold is not None  # which would have believed them


def test_a_cascade_that_costs_more_than_the_large_tier_alone_is_none():
    outcomes = draw(2000, 5)
    fitted = fit(dataclasses.replace(outcomes, cost=np.tile([0.95, 1.0], (len(outcomes), 1))), WISH, {})
    assert not fitted.policy.stages[0].can_answer
    assert fitted.bounded.cost.mean() == 1


def test_without_signals_the_rule_is_one_on_the_request():
    random = np.random.default_rng(6)
    is_hard = random.random(2000) < 0.5
    messages = tuple(({"role": "user", "content": "Prove 12 * 7 = 84" if hard else "Say hello"},) for hard in is_hard)
    quality = np.stack([np.where(is_hard, random.random(2000) < 0.2, True), np.ones(2000)], axis=1).astype(float)
    outcomes = Outcomes(messages, ("small", "large"), quality, np.tile([0.1, 1.0], (2000, 1)), {"small": {}, "large": {}}, "", False)
    fitted = fit(outcomes, WISH, {})
    (stage,) = fitted.policy.stages
    assert (stage.after, stage.hold_tokens) == (None, 0)
    assert share_large(fitted.bounded) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(CascadeError, match="--rules both: the outcomes have no signals of the tier 'small'"):
        fit(outcomes, dataclasses.replace(WISH, rules="both"), {})


def with_hopeless_requests(num, small_cost):
    """Half of the requests are ones that the small tier never gets right, and that look different."""
    outcomes = draw(num, 7)
    is_hopeless = np.random.default_rng(7).random(num) < 0.5
    messages = tuple(({"role": "user", "content": "Prove 12 * 7 = 84" if hard else "Say hello"},) for hard in is_hopeless)
    quality = np.where(is_hopeless[:, None], [0.0, 1.0], outcomes.quality)
    signals = {"small": {"margin_mean": np.where(is_hopeless, 0.01, outcomes.signals["small"]["margin_mean"])}, "large": {}}
    return dataclasses.replace(outcomes, messages=messages, quality=quality, signals=signals, cost=np.tile([small_cost, 1.0], (num, 1)))


def test_with_both_rules_drafts_that_do_not_pay_are_not_begun():
    outcomes = with_hopeless_requests(1500, small_cost=0.3)
    after, both = (fit(outcomes, dataclasses.replace(WISH, rules=rules), {}) for rules in ("after", "both"))
    assert share_large(both.bounded) == pytest.approx(share_large(after.bounded), abs=0.03)
    assert both.bounded.cost.mean() < after.bounded.cost.mean() - 0.1  # half of the requests, at 0.3 a draft


def test_with_both_rules_a_draft_that_costs_next_to_nothing_is_always_begun():
    before = fit(with_hopeless_requests(1500, small_cost=0.0), dataclasses.replace(WISH, rules="both"), {}).policy.stages[0].before
    assert before is not None
    assert before.threshold == 0.0


def test_three_tiers_keep_the_quality_of_the_last_together():
    num = 2500
    two = draw(num, 8)
    place = np.searchsorted(SIGNALS, two.signals["small"]["margin_mean"])
    medium_right = np.random.default_rng(8).random(num) < (SMALL_RIGHT + LARGE_RIGHT)[place] / 2
    outcomes = dataclasses.replace(
        two,
        tiers=("small", "medium", "large"),
        quality=np.insert(two.quality, 1, medium_right, axis=1),
        cost=np.tile([0.05, 0.3, 1.0], (num, 1)),
        signals={"small": two.signals["small"], "medium": two.signals["small"], "large": {}},
    )
    fitted = fit(outcomes, WISH, {})
    assert [stage.tier for stage in fitted.policy.stages] == ["small", "medium"]
    assert set(np.unique(fitted.bounded.answered)) == {0, 1, 2}
    assert fitted.bounded.quality.mean() >= 0.95 * fitted.alone.quality.mean()
    assert fitted.bounded.cost.mean() < fitted.alone.cost.mean()


def test_hold_tokens_are_those_that_the_signals_were_read_from():
    outcomes = draw(200, 9)
    counted = dataclasses.replace(outcomes, signals={"small": {**outcomes.signals["small"], "num_tokens": np.full(200, 24.0)}, "large": {}})
    assert fit(counted, WISH, {}).policy.stages[0].hold_tokens == 24
    assert fit(counted, dataclasses.replace(WISH, hold_tokens=32), {}).policy.stages[0].hold_tokens == 32
    with pytest.raises(CascadeError, match="--hold-tokens 16: the signals of 'small' are of up to 24 tokens"):
        fit(counted, dataclasses.replace(WISH, hold_tokens=16), {})


def test_the_longest_draft_counts_whichever_half_it_is_in():
    outcomes = draw(200, 9)
    for longest in range(0, 200, 20):
        num_tokens = np.where(np.arange(200) == longest, 31.0, 24.0)
        signals = {"small": {**outcomes.signals["small"], "num_tokens": num_tokens}, "large": {}}
        assert fit(dataclasses.replace(outcomes, signals=signals), WISH, {}).policy.stages[0].hold_tokens == 31


def test_tokens_to_hold_go_to_the_tiers_that_hold_some():
    two = draw(200, 9)
    outcomes = dataclasses.replace(
        two,
        tiers=("small", "medium", "large"),
        quality=np.insert(two.quality, 1, 1.0, axis=1),
        cost=np.tile([0.05, 0.3, 1.0], (200, 1)),
        signals={"small": two.signals["small"], "medium": {}, "large": {}},
    )
    stages = fit(outcomes, dataclasses.replace(WISH, hold_tokens=16), {}).policy.stages
    assert [stage.hold_tokens for stage in stages] == [16, 0]


def test_tokens_to_hold_are_refused_where_none_are_held():
    with pytest.raises(CascadeError, match="--hold-tokens 16: nothing is held"):
        fit(draw(200, 9), dataclasses.replace(WISH, rules="before", hold_tokens=16), {})


def test_a_signal_cannot_have_the_name_of_a_feature():
    outcomes = dataclasses.replace(draw(200, 9), signals={"small": {"numbers": np.ones(200)}, "large": {}})
    with pytest.raises(CascadeError, match="names of what is told of requests: numbers"):
        fit(outcomes, WISH, {})


def test_too_few_requests_to_halve_are_refused():
    with pytest.raises(CascadeError, match="3 requests cannot be halved"):
        fit(draw(3, 0), WISH, {})
