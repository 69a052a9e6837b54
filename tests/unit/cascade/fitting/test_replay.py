import numpy as np
import pytest

from serving.cascade.fitting.outcomes import Outcomes
from serving.cascade.fitting.replay import chances, replay, with_threshold
from serving.cascade.policy import Rule, Stage
from serving.errors import CascadeError

QUESTIONS = ("one", "two", "three", "four")
OUTCOMES = Outcomes(
    messages=tuple(({"role": "user", "content": text},) for text in QUESTIONS),
    tiers=("small", "large"),
    quality=np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.25, 0.5]]),
    cost=np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]),
    signals={"small": {"margin_mean": np.array([0.9, 0.1, 0.8, 0.3])}, "large": {}},
    sha256="",
    assumed_order=False,
)
MARGIN = Rule({"margin_mean": 1.0}, 0.0, (0.5, 0.75), (0.0, 1.0), threshold=(1 / (1 + np.exp(-0.5)) - 0.5) * 4)
"""Accepts margins of 0.5 and more."""
SHORT = Rule({"log_last_characters": -1.0}, np.log(4.5), (0.25, 0.75), (0.0, 1.0), threshold=0.5)
"""Accepts questions of three letters."""


def run(*stages, outcomes=OUTCOMES):
    return replay(stages, chances(stages, outcomes), outcomes)


def test_after_a_draft_that_is_rejected_both_are_paid():
    found = run(Stage("small", None, MARGIN, 8))
    assert found.answered.tolist() == [0, 1, 0, 1]
    assert found.quality.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert found.cost.tolist() == [1.0, 2.0 + 20.0, 3.0, 4.0 + 40.0]


def test_before_only_the_tier_that_answers_is_paid():
    found = run(Stage("small", SHORT, None, 0))
    assert found.answered.tolist() == [0, 0, 1, 1]
    assert found.cost.tolist() == [1.0, 2.0, 30.0, 40.0]


def test_what_before_keeps_away_has_no_draft_to_reject():
    found = run(Stage("small", SHORT, MARGIN, 8))
    assert found.answered.tolist() == [0, 1, 1, 1]
    assert found.cost.tolist() == [1.0, 2.0 + 20.0, 30.0, 40.0]


def test_a_tier_that_cannot_answer_is_not_paid():
    found = run(*with_threshold([Stage("small", None, MARGIN, 8)], None))
    assert found.answered.tolist() == [1, 1, 1, 1]
    assert found.cost.tolist() == [10.0, 20.0, 30.0, 40.0]


def test_with_three_tiers_the_first_that_accepts_answers_and_all_that_were_tried_are_paid():
    three = Outcomes(
        messages=OUTCOMES.messages,
        tiers=("small", "medium", "large"),
        quality=np.insert(OUTCOMES.quality, 1, 0.75, axis=1),
        cost=np.insert(OUTCOMES.cost, 1, 5.0, axis=1),
        signals={**OUTCOMES.signals, "medium": {"margin_mean": np.array([0.1, 0.9, 0.1, 0.1])}},
        sha256="",
        assumed_order=False,
    )
    found = run(Stage("small", None, MARGIN, 8), Stage("medium", None, MARGIN, 8), outcomes=three)
    assert found.answered.tolist() == [0, 1, 0, 2]
    assert found.quality.tolist() == [1.0, 0.75, 1.0, 0.5]
    assert found.cost.tolist() == [1.0, 2.0 + 5.0, 3.0, 4.0 + 5.0 + 40.0]


def test_the_replay_decides_as_the_rule_does():
    stage = Stage("small", None, MARGIN, 8)
    accepted = [MARGIN.accepts({"margin_mean": margin}) for margin in OUTCOMES.signals["small"]["margin_mean"]]
    assert (run(stage).answered == 0).tolist() == accepted


def test_a_signal_that_the_outcomes_do_not_have_is_named():
    stage = Stage("small", None, Rule({"entropy_max": 1.0}, 0.0, (0.5,), (1.0,), 0.5), 8)
    with pytest.raises(CascadeError, match="'small' asks for the signal 'entropy_max'"):
        chances([stage], OUTCOMES)
