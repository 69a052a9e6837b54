"""Breaker, budget, meter, sticky conversations: each on a clock of its own."""

import pytest

from serving.cascade.breaker import Breaker
from serving.cascade.budget import Budget
from serving.cascade.config import BudgetConfig, Price
from serving.cascade.costs import Meter, Usage
from serving.cascade.sticky import Sticky, conversation_of, is_continued


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failed_often(clock: Clock) -> Breaker:
    breaker = Breaker(2, 10.0, clock)
    breaker.failed()
    breaker.failed()
    return breaker


def test_a_breaker_opens_after_failures_in_a_row(clock):
    breaker = Breaker(2, 10.0, clock)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.try_pass()
    breaker.failed()
    assert not breaker.try_pass()
    assert breaker.remaining_s == 10.0


def test_after_the_cool_down_one_request_tries_it(clock):
    breaker = failed_often(clock)
    clock.now += 10
    assert [breaker.try_pass() for _ in range(3)] == [True, False, False]


def test_the_try_decides(clock):
    breaker = failed_often(clock)
    clock.now += 10
    breaker.try_pass()
    breaker.failed()
    assert breaker.remaining_s == 10.0
    clock.now += 10
    breaker.try_pass()
    breaker.succeeded()
    assert all(breaker.try_pass() for _ in range(3))


def test_a_try_that_never_ends_does_not_keep_the_tier_away_for_ever(clock):
    breaker = failed_often(clock)
    clock.now += 10
    breaker.try_pass()
    clock.now += 10
    assert breaker.try_pass()


def test_a_budget_comes_back_with_the_next_window(clock):
    budget = Budget(BudgetConfig(usd=1.0, window_s=60, then="small"), clock)
    budget.spend("key1", 0.6)
    assert budget.exceeded_for_s("key1") == 0
    clock.now += 20
    budget.spend("key2", 0.6)
    assert budget.exceeded_for_s("key1") == budget.exceeded_for_s("key2") == 40
    clock.now += 40
    assert budget.exceeded_for_s("key1") == 0


def test_a_budget_per_key_is_each_ones_own(clock):
    budget = Budget(BudgetConfig(usd=1.0, window_s=60, per="key", then="small"), clock)
    budget.spend("key1", 1.0)
    assert budget.exceeded_for_s("key1") == 60
    assert budget.exceeded_for_s("key2") == 0


def test_tokens_have_their_price():
    assert Meter(Price(input=3.0, output=15.0)).tokens_usd(Usage(1000, 100)) == pytest.approx(0.0045)


def test_answers_share_the_time_that_they_run_together_and_the_rest_is_idle(clock):
    meter = Meter(Price(per_hour=3600.0), clock)  # a dollar a second
    clock.now += 5
    first = meter.begin()
    clock.now += 2
    second = meter.begin()
    clock.now += 4
    assert meter.end(first) == pytest.approx(2 + 4 / 2)
    clock.now += 1
    assert meter.end(second) == pytest.approx(4 / 2 + 1)
    clock.now += 3
    assert meter.idle_usd() == pytest.approx(5 + 3)


def chat(*contents: str, system: str = "s") -> dict:
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return {"messages": [{"role": "system", "content": system}, *turns]}


def test_a_conversation_is_known_by_how_it_begins():
    begun = conversation_of(chat("a"), "", "")
    assert conversation_of(chat("a", "b", "c"), "", "") == begun
    assert conversation_of(chat("other"), "", "") != begun
    assert conversation_of(chat("a", system="t"), "", "") != begun
    assert conversation_of(chat("a"), "key1", "") != begun


def test_a_session_is_a_conversation_whatever_is_said():
    assert conversation_of({"prompt": "x"}, "", "id1") == conversation_of(chat("a"), "", "id1")
    assert conversation_of({"prompt": "x"}, "", "NEW_SESSION") is None
    assert conversation_of({"prompt": "x"}, "", "") is None


def test_the_same_first_words_are_no_continuation():
    assert not is_continued(chat("a"), "")
    assert is_continued(chat("a", "b", "c"), "")
    assert is_continued(chat("a"), "id1")


def test_a_conversation_is_kept_for_a_while(clock):
    sticky = Sticky(60.0, clock=clock)
    sticky.keep("c", "large")
    clock.now += 59
    assert sticky.tier_of("c") == "large"
    clock.now += 1
    assert sticky.tier_of("c") is None


def test_of_too_many_conversations_the_least_recently_used_goes(clock):
    sticky = Sticky(60.0, capacity=2, clock=clock)
    sticky.keep("a", "large")
    sticky.keep("b", "large")
    sticky.tier_of("a")
    sticky.keep("c", "large")
    assert [sticky.tier_of(name) for name in "abc"] == ["large", None, "large"]
