import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cascade.policy import Rule, Stage

RULE = Rule({"margin_mean": 2.0, "num_tokens": -1.0}, 0.0, (0.4, 0.6), (0.2, 0.8), threshold=0.5)


def test_a_chance_is_read_off_the_line():
    assert RULE.chance({"margin_mean": 1.0, "num_tokens": 2.0}) == pytest.approx(0.5)  # the logistic of 0 is half way
    assert RULE.chance({"margin_mean": 9.0, "num_tokens": 0.0}) == 0.8
    assert RULE.chance({"margin_mean": 0.0, "num_tokens": 9.0}) == 0.2


def test_what_reaches_the_threshold_is_accepted():
    assert RULE.accepts({"margin_mean": 1.0, "num_tokens": 2.0})
    assert not RULE.accepts({"margin_mean": 0.9, "num_tokens": 2.0})


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_more_of_what_speaks_for_a_tier_never_lowers_its_chance(margin, more):
    assert RULE.chance({"margin_mean": margin + more, "num_tokens": 1.0}) >= RULE.chance({"margin_mean": margin, "num_tokens": 1.0})


def test_without_a_threshold_nothing_is_accepted_and_the_tier_cannot_answer():
    closed = Rule({}, 0.0, (0.5,), (1.0,), threshold=None)
    assert not closed.accepts({})
    assert not Stage("small", before=RULE, after=closed, hold_tokens=8).can_answer
    assert Stage("small", before=RULE, after=None, hold_tokens=0).can_answer


def test_a_signal_that_is_not_there_is_not_taken_for_zero():
    with pytest.raises(KeyError, match="num_tokens"):
        RULE.chance({"margin_mean": 1.0})
