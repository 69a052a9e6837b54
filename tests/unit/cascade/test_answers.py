"""A request's way through the tiers, with each failure at each point of it."""

import asyncio
import json

import pytest

from serving.cascade.asked import Asked
from serving.cascade.breaker import Breaker
from serving.cascade.budget import Budget
from serving.cascade.chain import Limits
from serving.cascade.config import Bounds, BudgetConfig
from serving.engine.work import Scope, current_scope
from serving.errors import InvalidRequest, NotReady, Overloaded, TierFailure
from tests.unit.cascade.scripted import (
    CHAT,
    ERROR,
    SHORT,
    STREAM,
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
    whole,
)


async def test_a_draft_that_is_sure_is_let_go_from_its_first_chunk():
    setup = Setup(Model(draft(SURE, SURE, SURE)), Model(), with_policy=policy())
    assert await texts_of(await setup.ask()) == ["d0", "d1", "d2"]
    assert (setup.tier, setup.decision) == ("small", "accepted")
    assert float(setup.scope.headers["x-tokenport-cost"]) == 0, "nothing had been spent when it began"
    assert not setup.large.asked


async def test_a_draft_that_is_unsure_is_aborted_and_nothing_of_it_is_seen():
    dropped = draft(UNSURE, UNSURE, SURE)
    setup = Setup(Model(dropped), Model(stream("L0", "L1")), with_policy=policy())
    assert await texts_of(await setup.ask()) == ["L0", "L1"]
    assert (setup.tier, setup.decision) == ("large", "escalated")
    assert float(setup.scope.headers["x-tokenport-cost"]) > 0, "the dropped draft had been paid for when the answer began"
    assert dropped.is_closed


async def test_the_time_that_a_dropped_draft_was_held_is_told_with_the_answer_that_came_instead():
    go_on = asyncio.Event()
    dropped = Chunks([chunk("d0", UNSURE), go_on, chunk("d1", UNSURE)])
    setup = Setup(Model(dropped), Model(stream("L")), with_policy=policy())
    asking = asyncio.ensure_future(setup.ask())
    await setup.small.was_asked.wait()
    await asyncio.sleep(0.06)
    go_on.set()
    assert await texts_of(await asking) == ["L"]
    assert int(setup.scope.headers["x-tokenport-hold-ms"]) >= 50


async def test_only_the_held_tokens_are_judged():
    setup = Setup(Model(draft(SURE, SURE, UNSURE, UNSURE, UNSURE, UNSURE)), Model(), with_policy=policy(hold_tokens=2))
    assert (await texts_of(await setup.ask()))[:2] == ["d0", "d1"]
    assert setup.decision == "accepted"


async def test_an_answer_that_ends_before_enough_tokens_is_judged_on_what_it_has():
    setup = Setup(Model(draft(SURE)), Model(), with_policy=policy(hold_tokens=50))
    assert await texts_of(await setup.ask()) == ["d0"]


async def test_nothing_goes_out_while_the_draft_is_held():
    go_on = asyncio.Event()
    setup = Setup(Model(Chunks([chunk("d0", SURE), go_on, chunk("d1", SURE)])), Model(), with_policy=policy())
    asking = asyncio.ensure_future(setup.ask())
    await setup.small.was_asked.wait()
    await asyncio.sleep(0.05)
    assert not asking.done()
    go_on.set()
    assert await texts_of(await asking) == ["d0", "d1"]


async def test_after_the_hold_each_chunk_goes_out_as_it_comes():
    go_on = asyncio.Event()
    setup = Setup(Model(Chunks([chunk("d0", SURE), chunk("d1", SURE), go_on, chunk("d2", UNSURE)])), Model(), with_policy=policy())
    chunks = await setup.ask()
    assert [await anext(chunks), await anext(chunks)]
    third = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0.02)
    assert not third.done()
    go_on.set()
    assert "d2" in await third


async def test_a_hold_that_takes_too_long_is_decided_on_what_there_is_and_loses_no_token():
    go_on = asyncio.Event()
    script = Chunks([chunk("d0", SURE), go_on, chunk("d1", UNSURE), chunk("d2", SURE)])
    setup = Setup(Model(script), Model(), with_policy=policy(hold_tokens=3), limits=Limits(20.0, 0.05, 1, None))
    chunks = await setup.ask()
    go_on.set()
    assert await texts_of(chunks) == ["d0", "d1", "d2"]


async def test_a_tier_that_says_nothing_within_the_hold_is_given_up():
    silent = Chunks([asyncio.Event()])
    setup = Setup(Model(silent), Model(stream("L")), with_policy=policy(), limits=Limits(20.0, 0.05, 1, None))
    assert await texts_of(await setup.ask()) == ["L"]
    assert silent.is_closed


async def test_a_tier_whose_stream_does_not_begin_within_the_hold_is_given_up():
    setup = Setup(Model(asyncio.Event()), Model(stream("L")), with_policy=policy(), limits=Limits(20.0, 0.05, 1, None))
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "failover"


async def test_a_tier_whose_stream_does_not_begin_is_given_up():
    setup = Setup(Model(asyncio.Event()), Model(stream("L")), limits=Limits(0.05, 5.0, 1, None))
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "failover"


async def test_a_whole_answer_is_judged_by_its_first_tokens_too():
    setup = Setup(Model(whole("draft", UNSURE, UNSURE, SURE, SURE, SURE)), Model(whole("large")), with_policy=policy())
    answer = json.loads(await setup.ask(CHAT))
    assert answer["choices"][0]["message"]["content"] == "large"
    assert answer["usage"]["tokenport"]["rejected_tokens"] == 5


async def test_a_rule_on_the_request_keeps_the_small_tier_from_being_asked():
    setup = Setup(Model(), Model(stream("L")), with_policy=policy(before=SHORT, has_after=False))
    long = STREAM | {"messages": [{"role": "user", "content": "x" * 100}]}
    assert await texts_of(await setup.ask(long)) == ["L"]
    assert setup.decision == "escalated"
    assert not setup.small.asked


async def test_a_rule_on_the_request_alone_holds_nothing():
    setup = Setup(Model(stream("s")), Model(), with_policy=policy(before=SHORT, has_after=False))
    assert await texts_of(await setup.ask()) == ["s"]
    assert setup.decision == "accepted"
    assert setup.scope.headers["x-tokenport-hold-ms"] == "0"
    assert "logprobs" not in setup.small.asked[0]


@pytest.mark.parametrize("field", [{"n": 2}, {"echo": True}, {"use_beam_search": True}, {"include_reasoning": False}])
async def test_what_cannot_be_judged_is_not_accepted(field):
    setup = Setup(Model(), Model(stream("L")), with_policy=policy())
    assert await texts_of(await setup.ask(STREAM | field)) == ["L"]


@pytest.mark.parametrize("reason", ["throttled", "not_ready", "timeout", "unreachable", "broken", "refused", "failed"])
async def test_a_tier_that_fails_before_its_first_byte_is_replaced_by_the_next(reason):
    setup = Setup(Model(TierFailure("no", reason=reason)), Model(stream("L")))
    assert await texts_of(await setup.ask()) == ["L"]
    assert (setup.tier, setup.decision) == ("large", "failover")


async def test_a_draft_that_breaks_while_it_is_held_is_replaced_by_the_next():
    broken = Chunks([chunk("d0", SURE), ERROR])
    setup = Setup(Model(broken), Model(stream("L")), with_policy=policy())
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "failover"
    assert broken.is_closed


@pytest.mark.parametrize("logprobs", [{"content": [{"token": "a"}]}, {"content": 3}, "none", {}])
@pytest.mark.parametrize("body", [STREAM, CHAT])
async def test_a_draft_whose_logprobs_cannot_be_read_is_replaced_by_the_next(logprobs, body):
    choice = {"index": 0, "delta": {"content": "a"}, "message": {"content": "a"}, "logprobs": logprobs}
    text = json.dumps({"id": "c", "choices": [choice]})
    strange = Chunks([text]) if body is STREAM else text.encode()
    setup = Setup(Model(strange), Model(stream("L") if body is STREAM else whole("L")), with_policy=policy())
    await setup.ask(body)
    assert (setup.tier, setup.decision) == ("large", "failover")


async def test_after_the_commit_an_error_ends_the_stream_and_nobody_else_is_asked():
    setup = Setup(Model(Chunks([chunk("d0", SURE), chunk("d1", SURE), ERROR])), Model(), with_policy=policy())
    assert await texts_of(await setup.ask()) == ["d0", "d1", "ERROR"]
    assert not setup.large.asked


async def test_a_wrong_request_is_refused_at_once():
    setup = Setup(Model(InvalidRequest("max_tokens: no", param="max_tokens")), Model(), limits=Limits(20.0, 5.0, 3, None))
    with pytest.raises(InvalidRequest, match="max_tokens"):
        await setup.ask()
    assert len(setup.small.asked) == 1


async def test_the_last_tiers_failure_is_told_with_when_to_come_back():
    large = Model(TierFailure("full", reason="throttled", retry_after_s=30.2))
    setup = Setup(Model(TierFailure("no", reason="failed")), large)
    with pytest.raises(TierFailure, match="full") as raised:
        await setup.ask()
    assert raised.value.headers == {"Retry-After": "31"}


async def test_where_all_failed_those_that_may_do_better_are_asked_again(monkeypatch):
    monkeypatch.setattr("serving.cascade.chain._BACKOFF_S", 0.01)
    small = Model(TierFailure("cut", reason="broken"), stream("s"))
    setup = Setup(small, Model(TierFailure("late", reason="timeout")), limits=Limits(20.0, 5.0, 2, None))
    assert await texts_of(await setup.ask()) == ["s"]
    assert small.request_ids == ["r", "r-3"]
    assert len(setup.large.asked) == 1


async def test_a_slow_tier_is_not_asked_twice():
    setup = Setup(
        Model(TierFailure("late", reason="timeout")), Model(TierFailure("late", reason="timeout")), limits=Limits(20.0, 5.0, 5, None)
    )
    with pytest.raises(TierFailure):
        await setup.ask()
    assert len(setup.small.asked) == len(setup.large.asked) == 1


async def test_who_is_to_come_back_later_than_can_be_waited_for_is_told_so():
    setup = Setup(Model(TierFailure("full", reason="throttled", retry_after_s=60)), Model(), limits=Limits(20.0, 5.0, 3, None))
    with pytest.raises(TierFailure, match="full"):
        await asyncio.wait_for(setup.ask(model="small"), 2)


async def test_a_dropped_draft_is_not_asked_for_again(monkeypatch):
    monkeypatch.setattr("serving.cascade.chain._BACKOFF_S", 0.01)
    large = Model(TierFailure("cut", reason="broken"), stream("L"))
    setup = Setup(Model(draft(UNSURE, UNSURE)), large, with_policy=policy(), limits=Limits(20.0, 5.0, 2, None))
    assert await texts_of(await setup.ask()) == ["L"]
    assert len(setup.small.asked) == 1


async def test_a_tier_that_failed_too_often_is_left_alone():
    setup = Setup(Model(), Model(*(TierFailure("down", reason="unreachable") for _ in range(5))))
    for _ in range(5):
        with pytest.raises(TierFailure, match="down"):
            await setup.ask(model="large")
    with pytest.raises(TierFailure, match="left alone") as raised:
        await setup.ask(model="large")
    assert 1 <= int(raised.value.headers["Retry-After"]) <= 30
    assert len(setup.large.asked) == 5


async def test_an_unsure_draft_is_kept_where_nobody_else_can_be_asked():
    setup = Setup(Model(draft(UNSURE, UNSURE)), Model(), with_policy=policy())
    for _ in range(5):
        setup.tiers[1].breaker.failed()
    assert await texts_of(await setup.ask()) == ["d0", "d1"]
    assert (setup.tier, setup.decision) == ("small", "kept")


async def test_of_all_drafts_that_are_unsure_when_a_tier_may_be_tried_again_one_is_dropped_for_it_and_the_others_are_kept():
    num, now_s = 20, [0.0]
    breaker = Breaker(1, 60.0, lambda: now_s[0])
    small = Model(*(draft(UNSURE, UNSURE) for _ in range(num)))
    setup = Setup(small, Model(stream("L")), with_policy=policy(), breaker_of_large=breaker)
    breaker.failed()
    now_s[0] = 60.0
    given = await asyncio.gather(*(setup.ask() for _ in range(num)))
    found = [await texts_of(chunks) for chunks in given]
    assert sorted(found) == [["L"], *[["d0", "d1"]] * (num - 1)]


async def test_the_one_try_that_a_draft_was_dropped_for_is_not_lost_at_a_tier_before_it_that_is_left_alone():
    now_s = [0.0]
    middle, large = Breaker(1, 90.0, lambda: now_s[0]), Breaker(1, 60.0, lambda: now_s[0])
    setup = Setup(Model(draft(UNSURE, UNSURE)), Model(stream("L")), with_policy=policy(), breaker_of_large=large)
    setup.tiers.insert(1, tier("middle", Model(), breaker=middle))
    middle.failed()
    large.failed()
    now_s[0] = 60.0
    assert await texts_of(await setup.ask()) == ["L"]


async def test_a_tier_that_a_draft_was_dropped_for_is_left_alone_when_that_try_fails(monkeypatch):
    monkeypatch.setattr("serving.cascade.chain._BACKOFF_S", 0.01)
    large, limits = Model(TierFailure("cut", reason="broken")), Limits(20.0, 5.0, 2, None)
    setup = Setup(Model(draft(UNSURE, UNSURE)), large, with_policy=policy(), limits=limits, breaker_of_large=Breaker(1, 60.0))
    with pytest.raises(TierFailure, match="left alone"):
        await setup.ask()
    assert len(large.asked) == 1


async def test_a_draft_that_has_cost_the_limit_is_kept():
    setup = Setup(Model(draft(UNSURE, UNSURE)), Model(), with_policy=policy(), limits=Limits(20.0, 5.0, 1, 1e-6))
    assert await texts_of(await setup.ask()) == ["d0", "d1"]
    assert setup.decision == "kept"


async def test_a_spent_deadline_asks_nobody():
    setup = Setup(Model(), Model(), deadline_s=0.0)
    with pytest.raises(TierFailure, match="deadline"):
        await setup.ask()
    assert not setup.small.asked


async def test_a_named_tier_answers_without_being_judged():
    setup = Setup(Model(), Model(stream("L")), with_policy=policy())
    assert await texts_of(await setup.ask(model="large")) == ["L"]
    assert setup.decision == "named"


async def test_a_named_tier_that_cannot_take_a_field_names_both():
    setup = Setup(Model(), Model(cannot="top_k"))
    with pytest.raises(InvalidRequest, match=r"top_k.*'large'") as raised:
        await setup.ask(STREAM | {"top_k": 3}, model="large")
    assert raised.value.param == "top_k"


async def test_a_tier_that_cannot_take_the_request_is_passed_over():
    setup = Setup(Model(cannot="top_k"), Model(stream("L")), with_policy=policy())
    assert await texts_of(await setup.ask(STREAM | {"top_k": 3})) == ["L"]
    assert setup.decision == "unable"


async def test_a_completion_passes_over_a_tier_that_only_chats():
    setup = Setup(Model(kinds=["chat"]), Model(stream("L")))
    await setup.ask({"model": "auto", "prompt": "x", "stream": True}, kind="completion")
    assert (setup.tier, setup.decision) == ("large", "unable")
    with pytest.raises(InvalidRequest, match="prompt: the tier 'small' takes no completion requests"):
        await setup.ask({"model": "small", "prompt": "x"}, model="small", kind="completion")


async def test_where_no_tier_can_take_the_request_the_field_is_named():
    setup = Setup(Model(cannot="top_k"), Model(cannot="top_k"))
    with pytest.raises(InvalidRequest, match="top_k"):
        await setup.ask(STREAM | {"top_k": 3})


async def test_a_request_that_is_too_long_for_a_tier_goes_to_the_next():
    setup = Setup(Model(), Model(stream("L")), takes={"conversation_characters": Bounds(max=1)})
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "rule"


async def test_rules_on_a_request_that_hold_let_the_tier_answer():
    setup = Setup(Model(stream("s")), Model(), takes={"conversation_characters": Bounds(min=2, max=2), "code_fences": Bounds(max=0)})
    assert await texts_of(await setup.ask()) == ["s"]
    assert setup.decision == "first"


async def test_a_rule_comes_before_the_policy():
    setup = Setup(Model(), Model(stream("L")), with_policy=policy(before=SHORT), takes={"english_words": Bounds(min=20)})
    assert await texts_of(await setup.ask()) == ["L"]
    assert setup.decision == "rule"


async def test_a_tier_by_name_says_which_of_its_rules_the_request_breaks():
    setup = Setup(Model(), Model(), takes={"num_turns": Bounds(max=1), "code_fences": Bounds(max=0)})
    with pytest.raises(InvalidRequest, match="the tier 'small' takes code_fences of at most 0, and this has 2") as raised:
        await setup.ask(CHAT | {"messages": [{"role": "user", "content": "```\nx\n```"}]}, model="small")
    assert raised.value.param == "messages"


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3]])
async def test_a_tier_with_rules_takes_no_prompt_that_is_not_one_text(prompt):
    setup = Setup(Model(), Model(stream("L")), takes={"words": Bounds(max=100)})
    await setup.ask({"prompt": prompt, "stream": True}, kind="completion")
    assert (setup.tier, setup.decision) == ("large", "rule")


async def test_where_no_tier_takes_the_request_the_last_ones_reason_is_told():
    setup = Setup(Model(), Model(cannot="top_k"), takes={"words": Bounds(max=0)})
    with pytest.raises(InvalidRequest, match="top_k: the tier 'large' has nothing for it"):
        await setup.ask(STREAM | {"top_k": 3})


async def test_a_conversation_that_a_rule_handed_on_stays_there():
    setup = Setup(Model(), Model(stream("L"), stream("M")), takes={"code_fences": Bounds(max=0)}, sticky_s=60)
    code = [{"role": "user", "content": "```\nx\n```"}]
    await texts_of(await setup.ask(STREAM | {"messages": code}))
    follow_up = [*code, {"role": "assistant", "content": "L"}, {"role": "user", "content": "thanks"}]
    assert await texts_of(await setup.ask(STREAM | {"messages": follow_up})) == ["M"]
    assert setup.decision == "sticky"


async def test_a_whole_answer_costs_all_that_was_spent_on_it():
    setup = Setup(Model(whole("d", UNSURE, UNSURE, num_prompt=1000)), Model(whole("L", num_prompt=2000)), with_policy=policy())
    answer = json.loads(await setup.ask(CHAT))
    small = 1000 * 1e-6 + 2 * 2e-6
    large = 2000 * 10e-6 + 5 * 20e-6
    assert answer["usage"]["tokenport"]["cost_usd"] == pytest.approx(small + large)
    assert float(setup.scope.headers["x-tokenport-cost"]) == pytest.approx(small + large)


@pytest.mark.parametrize("running", [True, False])
async def test_a_dropped_draft_is_paid_for_with_its_prompt(running):
    setup = Setup(Model(draft(UNSURE, UNSURE, running=running)), Model(stream("L")), with_policy=policy())
    chunks = await setup.ask(STREAM | {"stream_options": {"include_usage": True}})
    last = [json.loads(text) async for text in chunks][-1]
    assert last["usage"]["completion_tokens"] == 1
    assert last["usage"]["tokenport"]["rejected_tokens"] == 2
    assert last["usage"]["tokenport"]["cost_usd"] == pytest.approx((10 * 1 + 2 * 2 + 10 * 10 + 1 * 20) * 1e-6)


async def test_who_did_not_ask_for_usage_or_logprobs_gets_none():
    setup = Setup(Model(draft(SURE, SURE)), Model(), with_policy=policy())
    chunks = [json.loads(text) async for text in await setup.ask()]
    assert setup.small.asked[0]["top_logprobs"] == 2
    assert not any("usage" in chunk for chunk in chunks)
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


async def test_who_asked_for_logprobs_gets_as_many_as_asked_for():
    setup = Setup(Model(draft(SURE, SURE)), Model(), with_policy=policy())
    chunks = [json.loads(text) async for text in await setup.ask(STREAM | {"logprobs": True, "top_logprobs": 1})]
    assert [len(chunk["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) for chunk in chunks] == [1, 1]


async def test_a_conversation_stays_with_the_tier_that_it_was_handed_to():
    setup = Setup(Model(draft(UNSURE, UNSURE)), Model(stream("L"), stream("M")), with_policy=policy(), sticky_s=60)
    await texts_of(await setup.ask())
    follow_up = [*CHAT["messages"], {"role": "assistant", "content": "L"}, {"role": "user", "content": "more"}]
    assert await texts_of(await setup.ask(STREAM | {"messages": follow_up})) == ["M"]
    assert setup.decision == "sticky"
    assert len(setup.small.asked) == 1


async def test_a_conversation_whose_tier_cannot_take_what_follows_is_free_again():
    setup = Setup(Model(draft(UNSURE, UNSURE), draft(SURE, SURE)), Model(stream("L"), cannot="top_k"), with_policy=policy(), sticky_s=60)
    await texts_of(await setup.ask())
    follow_up = [*CHAT["messages"], {"role": "assistant", "content": "L"}, {"role": "user", "content": "more"}]
    assert await texts_of(await setup.ask(STREAM | {"messages": follow_up, "top_k": 3})) == ["d0", "d1"]
    assert setup.decision == "accepted"


async def test_a_conversation_whose_tier_is_left_alone_is_free_again():
    setup = Setup(Model(draft(UNSURE, UNSURE), draft(UNSURE, UNSURE)), Model(stream("L")), with_policy=policy(), sticky_s=60)
    await texts_of(await setup.ask())
    for _ in range(5):
        setup.tiers[1].breaker.failed()
    follow_up = [*CHAT["messages"], {"role": "assistant", "content": "L"}, {"role": "user", "content": "more"}]
    assert await texts_of(await setup.ask(STREAM | {"messages": follow_up})) == ["d0", "d1"]
    assert setup.decision == "kept"


async def test_what_is_not_accepted_is_kept_where_no_larger_tier_can_take_it():
    setup = Setup(Model(stream("s")), Model(cannot="top_k"), with_policy=policy(before=SHORT, has_after=False))
    long = STREAM | {"messages": [{"role": "user", "content": "x" * 100}], "top_k": 3}
    assert await texts_of(await setup.ask(long)) == ["s"]
    assert setup.decision == "kept"


async def test_beyond_the_budget_the_first_tier_answers_unjudged():
    budget = Budget(BudgetConfig(usd=1e-9, window_s=60, then="small"))
    setup = Setup(Model(draft(UNSURE, UNSURE), stream("s")), Model(stream("L")), with_policy=policy(), budget=budget)
    await texts_of(await setup.ask())
    assert await texts_of(await setup.ask()) == ["s"]
    assert setup.decision == "budget"
    with pytest.raises(Overloaded) as raised:
        await setup.ask(model="large")
    assert 1 <= int(raised.value.headers["Retry-After"]) <= 60


async def test_beyond_the_budget_what_the_first_tier_does_not_take_is_to_come_back_later():
    budget = Budget(BudgetConfig(usd=1e-9, window_s=60, then="small"))
    setup = Setup(Model(), Model(stream("L")), budget=budget, takes={"words": Bounds(max=0)})
    await texts_of(await setup.ask())
    with pytest.raises(Overloaded, match="the budget is spent"):
        await setup.ask()
    with pytest.raises(InvalidRequest, match="the tier 'small' takes words"):
        await setup.ask(model="small")


async def test_a_budget_can_refuse_and_is_each_keys_own():
    budget = Budget(BudgetConfig(usd=1e-9, window_s=60, per="key", then="refuse"))
    setup = Setup(Model(stream("s"), stream("t")), Model(), budget=budget)
    setup.scope.caller = "key1"
    await texts_of(await setup.ask())
    with pytest.raises(Overloaded):
        await setup.ask()
    setup.scope.caller = "key2"
    assert await texts_of(await setup.ask()) == ["t"]


async def test_a_client_that_leaves_during_the_hold_aborts_the_draft():
    held = Chunks([chunk("d0", SURE), asyncio.Event()])
    setup = Setup(Model(held), Model(), with_policy=policy())
    asking = asyncio.ensure_future(setup.ask())
    await setup.small.was_asked.wait()
    await asyncio.sleep(0.02)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert held.is_closed
    assert not setup.large.asked


async def test_a_client_that_leaves_a_stream_aborts_it():
    given = Chunks([chunk("L0"), asyncio.Event()])
    setup = Setup(Model(), Model(given))
    chunks = await setup.ask(model="large")
    await anext(chunks)
    await chunks.aclose()
    assert given.is_closed


async def test_the_servers_end_ends_a_stream_from_elsewhere_with_an_error():
    setup = Setup(Model(), Model(Chunks([chunk("L0"), asyncio.Event()])))
    chunks = await setup.ask(model="large")
    reading = asyncio.ensure_future(texts_of(chunks))
    await asyncio.sleep(0.02)
    setup.work.cut_all("shutdown")
    assert await asyncio.wait_for(reading, 5) == ["L0", "ERROR"]


async def test_the_servers_end_ends_the_wait_for_a_tier_elsewhere():
    setup = Setup(Model(), Model(asyncio.Event(), stream("L")))
    asking = asyncio.ensure_future(setup.ask(model="large"))
    await setup.large.was_asked.wait()
    setup.work.cut_all("shutdown")
    with pytest.raises(NotReady, match="shutting down"):
        await asyncio.wait_for(asking, 5)


async def test_answers_elsewhere_are_no_load_of_the_engine_here():
    setup = Setup(Model(), Model(stream("L")))
    chunks = await setup.ask(model="large")
    assert (setup.work.num_sequences, setup.work.num_tokens, setup.work.standstill_s()) == (0, 0, 0.0)
    await texts_of(chunks)


async def test_of_several_answers_in_one_http_request_the_headers_tell_no_single_tier():
    setup = Setup(Model(whole("a"), whole("b")), Model())
    scope = Scope()
    current_scope.set(scope)
    for _ in range(2):
        await setup.answers.answer(Asked("chat", CHAT), "auto", "r")
    assert scope.headers == {"x-tokenport-tier": "several"}
