"""A server of known timing and known faults, and the record that must come out of each."""

import itertools
import socket
import statistics

import pytest

from benchmarks.load.plan import Plan, Request
from benchmarks.measuring.timing import e2e_s, tpot_s, ttft_s
from tests.benchmarks.driving import PROMPT, closed, driven, opened, spec_of
from tests.benchmarks.stub import running_stub

SLACK_S = 0.3
"""What a busy machine may be late; the effects looked for are larger. Nothing can be early: the schedule is absolute."""


@pytest.fixture(scope="module")
def url():
    with running_stub() as stub:
        yield stub.url


def usual_s(samples) -> float:
    return statistics.median(samples)


@pytest.mark.parametrize("api", ["completions", "chat", "invocations"])
async def test_times_are_those_of_the_script(url, api):
    [record] = await driven(closed(max_tokens=20), spec_of(url, api, ttft_s=0.4, itl_s=0.05))
    assert (record.error, record.status, record.finish_reason, record.is_whole) == (None, 200, "length", True)
    assert (record.prompt_tokens, record.output_tokens, record.arrival_tokens) == (len(PROMPT.split()), 20, [1] * 20)
    lateness_s = [arrival - record.sent_s - 0.4 - number * 0.05 for number, arrival in enumerate(record.arrivals_s)]
    assert len(lateness_s) == 20
    assert min(lateness_s) >= 0
    assert usual_s(lateness_s) < 0.1
    assert 0.4 <= ttft_s(record) < 0.4 + SLACK_S
    assert tpot_s(record) == pytest.approx(0.05, abs=0.02)
    assert 0.4 + 19 * 0.05 <= e2e_s(record) < 0.4 + 19 * 0.05 + SLACK_S


async def test_merged_tokens_are_one_piece_with_their_number(url):
    [record] = await driven(closed(max_tokens=10), spec_of(url, ttft_s=0.1, itl_s=0.05, tokens_per_event=4))
    assert (record.arrival_tokens, record.output_tokens) == ([4, 4, 2], 10)
    assert record.arrivals_s[0] - record.sent_s >= 0.1 + 3 * 0.05


async def test_events_that_come_in_one_write_share_its_time(url):
    [record] = await driven(closed(max_tokens=9), spec_of(url, itl_s=0.05, events_per_write=3))
    assert len(record.arrivals_s) == 9
    assert [len(list(group)) for _, group in itertools.groupby(record.arrivals_s)] == [3, 3, 3]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_bytes_split_anywhere_change_nothing(url, line_end):
    behaviour = {"split_bytes": 7, "split_gap_s": 0.0, "line_end": line_end, "has_comments": True}
    [record] = await driven(closed(max_tokens=5), spec_of(url, "chat", **behaviour))
    assert (record.error, record.arrival_tokens, record.output_tokens) == (None, [1] * 5, 5)


@pytest.mark.parametrize("piece", ["reasoning_content", "tool_calls"])
async def test_reasoning_and_tool_calls_are_output(url, piece):
    [record] = await driven(closed(max_tokens=5), spec_of(url, "chat", piece=piece))
    assert len(record.arrivals_s) == 5


async def test_an_early_close_is_broken_and_keeps_what_came(url):
    [record] = await driven(closed(), spec_of(url, itl_s=0.02, close_after_tokens=3))
    assert (record.error_kind, record.status, len(record.arrivals_s), record.is_whole) == ("broken", 200, 3, False)
    assert record.ended_s >= record.arrivals_s[-1]


async def test_a_stream_without_done_is_whole_after_its_finish_reason(url):
    whole, broken = [
        await driven(closed(), spec_of(url, has_done=False, usage="absent", finish_reason=reason)) for reason in ("length", None)
    ]
    assert (whole[0].error, whole[0].is_whole) == (None, True)
    assert broken[0].error_kind == "broken"


async def test_refusals_are_counted_with_their_status(url):
    records = await driven(closed(4), spec_of(url, status=429, status_every=2))
    refused = [record for record in records if not record.is_whole]
    assert [(record.error_kind, record.status) for record in refused] == [("refused", 429)] * 2
    assert all("HTTP 429: scripted refusal of request" in record.error for record in refused)
    assert all(record.arrivals_s == [] and record.ended_s >= record.sent_s for record in refused)


@pytest.mark.parametrize("form", ["data", "event"])
async def test_an_error_in_the_stream_is_reported(url, form):
    [record] = await driven(closed(), spec_of(url, error_after_tokens=2, error_form=form))
    assert (record.error_kind, record.error, len(record.arrivals_s)) == ("reported", "scripted error in the stream", 2)


async def test_an_event_that_is_no_json_is_malformed(url):
    [record] = await driven(closed(), spec_of(url, garbage_after_tokens=2))
    assert (record.error_kind, len(record.arrivals_s)) == ("malformed", 2)


async def test_a_stream_that_hangs_runs_into_its_deadline(url):
    hanging = spec_of(url, hang_after_tokens=2)
    [record] = await driven(closed(request_timeout_s=0.5), hanging)
    assert (record.error_kind, len(record.arrivals_s)) == ("timeout", 2)
    assert 0.5 <= record.ended_s - record.scheduled_s < 0.5 + SLACK_S


async def test_nothing_there_is_a_failed_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        [record] = await driven(closed(), spec_of(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert (record.error_kind, record.sent_s, record.status) == ("connection", None, None)
    assert record.ended_s is not None


async def test_a_slow_accept_shows_from_the_scheduled_time(url):
    [record] = await driven(closed(), spec_of(url, accept_delay_s=0.6))
    assert ttft_s(record) >= 0.6


async def test_usage_absent_or_wrong_is_told_as_it_is(url):
    [absent] = await driven(closed(), spec_of(url, usage="absent"))
    assert (absent.output_tokens, absent.arrival_tokens, absent.num_tokens) == (None, None, 8)
    [wrong] = await driven(closed(), spec_of(url, usage="wrong", has_continuous_usage=False))
    assert (wrong.output_tokens, wrong.arrival_tokens, len(wrong.arrivals_s)) == (9, None, 8)
    [cached] = await driven(closed(), spec_of(url, num_cached_tokens=4))
    assert cached.cached_tokens == 4


async def test_an_answer_that_is_not_streamed_has_no_first_token(url):
    spec = spec_of(url, ttft_s=0.2)
    spec.extra_body["stream"] = False
    [record] = await driven(closed(), spec)
    assert (record.is_streamed, len(record.arrivals_s), record.output_tokens, ttft_s(record)) == (False, 1, 8, None)
    assert record.is_whole


async def test_connections_are_kept_for_the_next_request(url):
    records = await driven(closed(30, 1, max_tokens=1), spec_of(url))
    assert all(record.is_whole for record in records)
    assert usual_s(record.sent_s - record.scheduled_s for record in records) < 0.1


async def test_a_stalled_server_shows_in_an_open_loop_for_every_request_due_meanwhile():
    times = [number * 0.1 for number in range(20)]
    with running_stub(stall_at_s=0.5, stall_s=1.5) as stub:
        records = await driven(opened(times, max_tokens=2), spec_of(stub.url))
    assert all(record.is_whole for record in records)
    assert [record.scheduled_s for record in records] == times
    # None waited for the answers before it.
    assert usual_s(record.sent_s - record.scheduled_s for record in records) < 0.1
    first_s = records[0].sent_s + 0.5
    for record in records:
        if first_s + 0.05 < record.sent_s < first_s + 1.2:
            assert ttft_s(record) >= first_s + 1.5 - record.sent_s - 0.05
    assert usual_s(ttft_s(record) for record in records[:4]) < 0.2
    assert sum(ttft_s(record) > 0.5 for record in records) >= 7


async def test_hundreds_of_streams_at_once(url):
    records = await driven(closed(500, 500, max_tokens=2), spec_of(url, ttft_s=2.0))
    assert all(record.is_whole for record in records)
    # All 500 at once on a quiet machine; on a busy one the first may end before the last is sent.
    num_open = max(sum(other.sent_s <= record.sent_s < other.ended_s for other in records) for record in records)
    assert num_open > 300


async def test_turns_carry_the_real_answers():
    turns = tuple(Request(number, f"question {number}", 2, conversation=0) for number in range(3))
    with running_stub() as stub:
        for api in ("chat", "completions"):
            records = await driven(Plan(turns, concurrency=1), spec_of(stub.url, api))
            assert all(record.is_whole for record in records)
        bodies = [exchange["body"] for exchange in stub.received()]
    said = [message["content"] for message in bodies[2]["messages"]]
    assert said == ["question 0", "word word ", "question 1", "word word ", "question 2"]
    assert [message["role"] for message in bodies[2]["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert bodies[5]["prompt"] == "question 0word word question 1word word question 2"
