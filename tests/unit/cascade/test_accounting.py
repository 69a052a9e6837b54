"""What is paid, and which tier is to blame, however a request ends."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from serving.cascade.bill import Bill
from serving.cascade.budget import Budget
from serving.cascade.chain import Limits
from serving.cascade.config import BudgetConfig, Price
from serving.cascade.costs import Usage
from serving.errors import TierFailure
from tests.unit.cascade.scripted import (
    ERROR,
    SURE,
    UNSURE,
    Chunks,
    Model,
    Setup,
    chunk,
    draft,
    policy,
    stream,
    texts_of,
    tier,
    usage,
)


def cost_usd(tier: str, use: str) -> float:
    return REGISTRY.get_sample_value("tokenport_cascade_cost_usd_total", {"tier": tier, "use": use}) or 0.0


def num_prompt_tokens(tier: str) -> float:
    return REGISTRY.get_sample_value("tokenport_cascade_tokens_total", {"tier": tier, "kind": "prompt"}) or 0.0


def num_failures(tier: str, reason: str) -> float:
    return REGISTRY.get_sample_value("tokenport_cascade_failures_total", {"tier": tier, "reason": reason}) or 0.0


async def test_a_draft_that_breaks_is_paid_for_as_far_as_it_came():
    before_usd = cost_usd("small", "failed")
    setup = Setup(Model(Chunks([chunk("d0", SURE, usage=usage(10, 1)), ERROR])), Model(stream("L")), with_policy=policy())
    await texts_of(await setup.ask())
    assert cost_usd("small", "failed") - before_usd == pytest.approx((10 * 1 + 1 * 2) * 1e-6)


async def test_a_client_that_leaves_during_the_hold_pays_for_what_was_made():
    before_usd = cost_usd("small", "failed")
    held = Chunks([chunk("d0", SURE, usage=usage(10, 1)), asyncio.Event()])
    setup = Setup(Model(held), Model(), with_policy=policy())
    asking = asyncio.ensure_future(setup.ask())
    await setup.small.was_asked.wait()
    await asyncio.sleep(0.02)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert cost_usd("small", "failed") - before_usd == pytest.approx((10 * 1 + 1 * 2) * 1e-6)


async def test_a_stream_that_is_left_before_its_usage_was_told_pays_for_its_chunks_out_of_the_budget():
    budget = Budget(BudgetConfig(usd=30e-6, window_s=60, then="refuse"))
    setup = Setup(Model(), Model(Chunks([chunk("L0"), chunk("L1"), asyncio.Event()])), budget=budget)
    chunks = await setup.ask(model="large")
    await anext(chunks)
    await anext(chunks)
    assert budget.exceeded_for_s("") == 0
    await chunks.aclose()
    assert budget.exceeded_for_s("") > 0, "two tokens for 20 USD a million each"


async def test_a_prompt_is_paid_for_once_its_length_is_known_whoever_tells_it():
    first, second, third = (tier(name, Model(), price=Price(input=1.0)) for name in ("first", "second", "third"))
    bill = Bill("", None)
    before = [num_prompt_tokens(name) for name in ("first", "second", "third")]
    bill.end(bill.begin(first), "rejected", Usage(None, 2))
    bill.end(bill.begin(second), "rejected", Usage(1000, 2))
    assert bill.spent_usd == pytest.approx(2 * 1000e-6)
    bill.end(bill.begin(third), "answer", Usage(None, 2))
    assert bill.spent_usd == pytest.approx(3 * 1000e-6)
    assert [num_prompt_tokens(name) for name in ("first", "second", "third")] == [number + 1000 for number in before]


async def test_the_time_of_a_machine_counts_to_the_cost_limit():
    go_on = asyncio.Event()
    held = Chunks([chunk("d0", UNSURE), go_on, chunk("d1", UNSURE)])
    price = Price(per_hour=3600.0)  # a dollar a second
    setup = Setup(Model(held), Model(), with_policy=policy(), limits=Limits(20.0, 5.0, 1, 0.01), price=price)
    asking = asyncio.ensure_future(setup.ask())
    await asyncio.sleep(0.05)
    go_on.set()
    assert await texts_of(await asking) == ["d0", "d1"]
    assert setup.decision == "kept"


async def test_a_tier_that_breaks_every_stream_after_its_first_byte_is_left_alone_in_the_end():
    setup = Setup(Model(), Model(*(Chunks([chunk("L0"), ERROR]) for _ in range(5))))
    for _ in range(5):
        assert await texts_of(await setup.ask(model="large")) == ["L0", "ERROR"]
    with pytest.raises(TierFailure, match="left alone"):
        await setup.ask(model="large")


async def test_an_answer_that_became_whole_makes_up_for_failures():
    broken = [Chunks([chunk("L0"), ERROR]) for _ in range(8)]
    setup = Setup(Model(), Model(*broken[:4], stream("L"), *broken[4:], stream("M")))
    for _ in range(9):
        await texts_of(await setup.ask(model="large"))
    assert await texts_of(await setup.ask(model="large")) == ["M"]


async def test_neither_who_leaves_nor_the_servers_end_is_a_tiers_failure():
    before = num_failures("large", "broken")
    setup = Setup(Model(), Model(Chunks([chunk("L0"), asyncio.Event()]), Chunks([asyncio.Event()])))
    left = await setup.ask(model="large")
    await anext(left)
    await left.aclose()
    reading = asyncio.ensure_future(texts_of(await setup.ask(model="large")))
    await asyncio.sleep(0.02)
    setup.work.cut_all("shutdown")
    assert await reading == ["ERROR"]
    assert num_failures("large", "broken") == before


async def test_an_answer_that_the_deadline_ends_does_not_count_towards_leaving_its_tier_alone():
    before = num_failures("large", "timeout")
    late = asyncio.Event()
    setup = Setup(Model(), Model(Chunks([chunk("L0"), late, ERROR]), stream("M")), deadline_s=0.5)
    for _ in range(4):
        setup.tiers[1].breaker.failed()
    chunks = await setup.ask(model="large")
    asyncio.get_running_loop().call_later(0.6, late.set)
    assert await texts_of(chunks) == ["L0", "ERROR"]
    assert num_failures("large", "timeout") - before == 1
    assert await texts_of(await setup.ask(model="large")) == ["M"]


async def test_one_that_may_do_better_is_asked_again_though_another_is_to_be_asked_much_later(monkeypatch):
    monkeypatch.setattr("serving.cascade.chain._BACKOFF_S", 0.01)
    small = Model(TierFailure("cut", reason="broken"), stream("s"))
    large = Model(TierFailure("full", reason="throttled", retry_after_s=60))
    setup = Setup(small, large, limits=Limits(20.0, 5.0, 2, None))
    assert await texts_of(await setup.ask()) == ["s"]
    assert len(large.asked) == 1


async def test_a_larger_tier_that_answers_at_its_second_try_was_escalated_to(monkeypatch):
    monkeypatch.setattr("serving.cascade.chain._BACKOFF_S", 0.01)
    large = Model(TierFailure("cut", reason="broken"), stream("L"))
    setup = Setup(Model(draft(UNSURE, UNSURE)), large, with_policy=policy(), limits=Limits(20.0, 5.0, 2, None), sticky_s=60)
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "escalated"


async def test_log_probabilities_of_no_known_shape_after_the_commit_end_the_stream_in_an_error():
    strange = chunk("d2").replace('"logprobs": null', '"logprobs": {"content": [3]}')
    setup = Setup(Model(Chunks([chunk("d0", SURE), chunk("d1", SURE), strange])), Model(), with_policy=policy())
    asked_for_logprobs = {"model": "auto", "messages": [], "stream": True, "logprobs": True, "top_logprobs": 2}
    assert await texts_of(await setup.ask(asked_for_logprobs)) == ["d0", "d1", "ERROR"]


async def test_the_time_that_a_draft_was_held_until_it_broke_is_told():
    go_on = asyncio.Event()
    setup = Setup(Model(Chunks([chunk("d0", SURE), go_on, ERROR])), Model(stream("L")), with_policy=policy())
    asking = asyncio.ensure_future(setup.ask())
    await setup.small.was_asked.wait()
    await asyncio.sleep(0.06)
    go_on.set()
    await texts_of(await asking)
    assert int(setup.scope.headers["x-tokenport-hold-ms"]) >= 50
