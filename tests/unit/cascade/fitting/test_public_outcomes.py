"""On what two public models really did: 400 questions of GSM8K, Mixtral-8x7B and GPT-4 (see NOTICE beside the data)."""

from pathlib import Path

import numpy as np
import pytest

from serving.cascade.fitting.evaluate import evaluate
from serving.cascade.fitting.fit import Wish, fit
from serving.cascade.fitting.outcomes import Outcomes, read_outcomes

FILE = Path(__file__).parents[3] / "data" / "cascade" / "gsm8k-400.jsonl"


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    return read_outcomes(FILE)


def test_the_sample_is_like_the_whole(outcomes):
    # Of all 1,319 questions Mixtral-8x7B has 63.8 % right, GPT-4 85.7 %.
    assert outcomes.tiers == ("mixtral-8x7b", "gpt-4-1106")
    assert outcomes.quality.mean(axis=0) == pytest.approx([0.638, 0.857], abs=0.04)


def test_a_coin_needs_most_of_the_requests_and_an_oracle_few(outcomes):
    found = evaluate(fit(outcomes, Wish(0.95, 0.9), {}).policy, outcomes)
    assert found.share_needed["oracle"] < 0.25
    assert 0.7 < found.share_needed["random"] < 0.9
    assert found.share_needed["oracle"] < found.share_needed["prompt_length"] < found.share_needed["random"]
    assert found.baselines["small"].saving == pytest.approx(0.9)
    assert not found.baselines["small"].target_met


def test_the_bound_costs_requests_to_the_large_model_and_keeps_the_quality_on_held_out_questions(outcomes):
    fitted, held_out = outcomes.take(np.arange(300)), outcomes.take(np.arange(300, 400))
    found = evaluate(fit(fitted, Wish(0.9, 0.8), {}).policy, held_out)
    assert found.naive.share_large < found.policy.share_large < 1
    assert found.policy.target_met
    assert found.policy.quality <= found.baselines["oracle"].quality
