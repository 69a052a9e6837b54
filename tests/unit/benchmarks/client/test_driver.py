"""The driver's promises, on a target that answers as told: times that are due, places, conversations, ends; one record a request."""

import asyncio
import itertools
import time

import pytest

from benchmarks.client.driver import drive
from benchmarks.client.progress import Progress
from benchmarks.load.plan import Plan, Request

SLACK_S = 0.25
"""What a busy machine may be late."""


class ScriptedTarget:
    """Answers after `answer_s` (of a request, where it is a mapping), and notes how many it had at once."""

    def __init__(self, answer_s=0.0, failing=()):
        self.answer_s = answer_s
        self.failing = failing
        self.num_running = self.most_running = 0
        self.prompts = {}
        self.origin_s = time.monotonic()

    def begin(self, origin_s):
        assert origin_s == self.origin_s

    def with_history(self, history, answer, prompt):
        return prompt if history is None else f"{history}{answer}{prompt}"

    async def send(self, request, prompt, record, *, wants_text):
        self.prompts[request.number] = prompt
        record.sent_s = self.now_s()
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            await asyncio.sleep(self.answer_s[request.number] if isinstance(self.answer_s, dict) else self.answer_s)
        finally:
            self.num_running -= 1
        record.arrivals_s.append(self.now_s())
        record.ended_s = self.now_s()
        if request.number in self.failing:
            record.error, record.error_kind = "no", "refused"
        return f"<{request.number}>" if wants_text else ""

    def now_s(self):
        return time.monotonic() - self.origin_s


def closed(num_requests: int, concurrency: int | None, **plan) -> Plan:
    return Plan(tuple(Request(number, "p", 1) for number in range(num_requests)), concurrency=concurrency, **plan)


def opened(*times: float, **plan) -> Plan:
    return Plan(tuple(Request(number, "p", 1, at_s=at_s) for number, at_s in enumerate(times)), **plan)


async def run(plan: Plan, target: ScriptedTarget, **more):
    records = await drive(plan, target, target.origin_s, **more)
    assert [record.number for record in records] == [request.number for request in plan.requests]
    return records


async def test_an_open_loop_sends_in_time_however_slow_the_answers_are():
    target = ScriptedTarget(answer_s=0.8)
    records = await run(opened(0.0, 0.1, 0.2, 0.3), target)
    assert [record.scheduled_s for record in records] == [0.0, 0.1, 0.2, 0.3]
    assert all(0 <= record.sent_s - record.scheduled_s < SLACK_S for record in records)
    assert target.most_running == 4


async def test_requests_of_an_open_loop_need_not_be_in_order_of_time():
    records = await run(opened(0.2, 0.0), ScriptedTarget())
    assert [record.scheduled_s for record in records] == [0.2, 0.0]
    assert records[1].sent_s < 0.2 <= records[0].sent_s


async def test_a_request_that_waits_for_a_place_keeps_the_time_at_which_it_was_due():
    target = ScriptedTarget(answer_s=0.3)
    records = await run(opened(0.0, 0.0, 0.0, concurrency=1), target)
    assert [record.scheduled_s for record in records] == [0.0, 0.0, 0.0]
    assert records[1].sent_s >= 0.3
    assert records[2].sent_s >= 0.6
    assert target.most_running == 1


async def test_in_a_closed_loop_a_request_is_due_when_a_place_is_free():
    target = ScriptedTarget(answer_s={0: 0.2, 1: 5.0, 2: 0.2, 3: 0.0})
    target.answer_s[1] = 0.7
    records = await run(closed(4, 2), target)
    assert all(0.0 <= record.scheduled_s <= record.sent_s < SLACK_S for record in records[:2])
    assert records[2].scheduled_s == pytest.approx(records[0].ended_s, abs=SLACK_S)
    assert records[2].scheduled_s >= records[0].ended_s
    assert records[3].scheduled_s >= records[2].ended_s
    assert target.most_running == 2


async def test_a_closed_loop_without_a_bound_sends_all_at_once():
    target = ScriptedTarget(answer_s=0.2)
    await run(closed(50, None), target)
    assert target.most_running == 50


async def test_turns_come_after_one_another_with_the_answers_between_and_time_to_think():
    turns = tuple(Request(number, f"q{number}", 1, conversation=7, think_s=0.0 if number == 0 else 0.2) for number in range(3))
    target = ScriptedTarget(answer_s=0.05)
    records = await run(Plan(turns, concurrency=4), target)
    assert target.prompts == {0: "q0", 1: "q0<0>q1", 2: "q0<0>q1<1>q2"}
    for before, after in itertools.pairwise(records):
        assert before.ended_s + 0.2 <= after.scheduled_s < before.ended_s + 0.2 + SLACK_S
        assert after.sent_s >= after.scheduled_s


async def test_conversations_run_beside_each_other():
    turns = [Request(number, "q", 1, at_s=0.0 if number < 2 else None, conversation=number % 2) for number in range(4)]
    target = ScriptedTarget(answer_s=0.2)
    await run(Plan(tuple(turns)), target)
    assert target.most_running == 2
    assert target.prompts[3] == "q<1>q"


async def test_a_turn_with_a_time_of_its_own_waits_for_it():
    turns = (Request(0, "a", 1, at_s=0.0, conversation=1), Request(1, "b", 1, at_s=0.3, conversation=1))
    records = await run(Plan(turns), ScriptedTarget())
    assert records[1].scheduled_s == 0.3 <= records[1].sent_s


async def test_after_a_failed_turn_the_later_ones_are_not_sent():
    turns = tuple(Request(number, "q", 1, conversation=1) for number in range(3))
    target = ScriptedTarget(failing={1})
    records = await run(Plan(turns, concurrency=1), target)
    assert [record.error_kind for record in records] == [None, "refused", "not_sent"]
    assert records[2].error == "request 1, the turn before it, failed"
    assert 2 not in target.prompts


async def test_after_the_duration_nothing_is_sent_and_what_runs_ends_normally():
    records = await run(closed(10, 1, duration_s=0.5), ScriptedTarget(answer_s=0.4))
    sent = [record for record in records if record.sent_s is not None]
    assert all(record.is_whole and record.sent_s < 0.5 for record in sent)
    assert 1 <= len(sent) <= 2
    assert {(record.error_kind, record.scheduled_s) for record in records[len(sent) :]} == {("not_sent", 0.5)}


async def test_requests_due_after_the_duration_are_not_waited_for():
    started_s = time.monotonic()
    records = await run(opened(0.0, 60.0, duration_s=0.3), ScriptedTarget())
    assert time.monotonic() - started_s < 10
    assert (records[1].error_kind, records[1].scheduled_s) == ("not_sent", 60.0)


async def test_a_request_that_takes_too_long_is_cut_off_and_its_place_is_free_again():
    records = await run(closed(2, 1, request_timeout_s=0.3), ScriptedTarget(answer_s={0: 60.0, 1: 0.0}))
    assert (records[0].error_kind, records[0].error) == ("timeout", "the answer had not ended after 0.3 s")
    assert 0.3 <= records[0].ended_s - records[0].sent_s < 0.3 + SLACK_S
    assert records[1].is_whole


async def test_a_stop_cuts_off_what_runs_and_keeps_what_was_measured():
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, stop.set)
    progress = Progress()
    records = await run(closed(4, 2), ScriptedTarget(answer_s={0: 0.0, 1: 60.0, 2: 60.0, 3: 0.0}), stop=stop, progress=progress)
    assert [record.error_kind for record in records] == [None, "broken", "broken", "not_sent"]
    assert "cut off" in records[1].error
    assert records[1].ended_s == pytest.approx(0.3, abs=SLACK_S)
    assert progress.counts() == {"sent": 3, "done": 1, "failed": 2, "output_tokens": 1}


async def test_a_fault_of_the_program_is_not_a_measurement():
    class Faulty(ScriptedTarget):
        async def send(self, request, prompt, record, *, wants_text):
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await run(closed(2, 1), Faulty())


async def test_the_run_begins_at_its_origin():
    target = ScriptedTarget()
    target.origin_s += 0.3
    records = await run(closed(1, 1), target)
    assert 0.0 <= records[0].scheduled_s <= records[0].sent_s
