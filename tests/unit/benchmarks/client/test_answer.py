"""What becomes of an answer's events in its record."""

import json

import pytest

from benchmarks.client.answer import AnswerReader, fail, one_line, reason_in
from benchmarks.measuring.record import Record


def event(**fields) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def text(piece: str, finish_reason: str | None = None, num_tokens: int | None = None, **more) -> bytes:
    usage = {} if num_tokens is None else {"usage": {"prompt_tokens": 3, "completion_tokens": num_tokens}}
    return event(choices=[{"text": piece, "finish_reason": finish_reason}], **usage, **more)


def delta(**fields) -> bytes:
    return event(choices=[{"delta": fields, "finish_reason": None}])


DONE = b"data: [DONE]\n\n"


def read(*reads: bytes, wants_text: bool = False) -> tuple[Record, AnswerReader]:
    """The k-th read comes at k seconds, the end of the stream at 99."""
    record = Record(0, 0.0, 8, sent_s=0.0)
    reader = AnswerReader(record, wants_text=wants_text)
    for at_s, data in enumerate(reads, start=1):
        reader.feed(data, float(at_s))
    reader.end_of_stream(99.0)
    return record, reader


def test_pieces_have_the_time_of_the_read_that_completed_them():
    whole = text("two")
    record, _ = read(text("one"), whole[:9], whole[9:] + text("three") + text("four"), DONE)
    assert record.arrivals_s == [1, 3, 3, 3]
    assert (record.ended_s, record.error, record.arrival_tokens) == (4, None, None)


@pytest.mark.parametrize("piece", [{"content": "a"}, {"reasoning_content": "a"}, {"reasoning": "a"}, {"tool_calls": [{"index": 0}]}])
def test_what_is_output(piece):
    assert read(delta(**piece), DONE)[0].arrivals_s == [1]


@pytest.mark.parametrize(
    "nothing",
    [delta(role="assistant", content=""), delta(), event(choices=[], usage={"completion_tokens": 5}), event(choices=None), event(id="x")],
)
def test_what_is_none(nothing):
    record, _ = read(nothing, text("a", "stop"), DONE)
    assert (record.arrivals_s, record.error) == ([2], None)


def test_the_servers_running_count_tells_the_tokens_of_each_piece():
    record, _ = read(text("one", num_tokens=1), text("two three", num_tokens=3), event(choices=[], usage={"completion_tokens": 3}), DONE)
    assert (record.arrival_tokens, record.output_tokens, record.prompt_tokens) == ([1, 2], 3, 3)


def test_a_token_without_text_has_come_where_the_server_counts_along():
    record, _ = read(text("one", num_tokens=1), text("", "stop", num_tokens=2), DONE)
    assert (record.arrivals_s, record.arrival_tokens) == ([1, 2], [1, 1])


def test_counts_of_some_pieces_only_are_no_running_count():
    record, _ = read(text("one"), text("two", "stop", num_tokens=2), DONE)
    assert (record.arrivals_s, record.arrival_tokens, record.output_tokens) == ([1, 2], None, 2)
    assert read(text("one", num_tokens=1), text("two"), DONE)[0].arrival_tokens is None


def test_cached_tokens():
    usage = {"prompt_tokens": 30, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 16}}
    record, _ = read(text("a", "stop"), event(choices=[], usage=usage), DONE)
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (30, 1, 16)


def test_an_end_without_done_is_whole_only_after_a_finish_reason():
    record, _ = read(text("a"), text("b", "length"))
    assert (record.error_kind, record.ended_s, record.finish_reason, record.is_whole) == (None, 99, "length", True)
    record, _ = read(text("a"), text("b"))
    assert (record.error_kind, record.ended_s, record.arrivals_s) == ("broken", 99, [1, 2])
    assert read()[0].error_kind == "broken"


@pytest.mark.parametrize(
    ("event_bytes", "kind", "reason"),
    [
        (event(error={"message": "out of\n memory", "code": 500}), "reported", "out of memory"),
        (event(error="gone"), "reported", "gone"),
        (event(object="error", message="engine died", code=500), "reported", "engine died"),
        (b"event: error\ndata: the engine fell\n\n", "reported", "the engine fell"),
        (b'event: error\ndata: {"detail": "fell"}\n\n', "reported", "fell"),
        (b'data: {"choices": [\n\n', "malformed", 'event 2 is not understood (Input data was truncated): {"choices": ['),
        (b"data: 7\n\n", "malformed", None),
        (b'data: {"choices": "none"}\n\n', "malformed", None),
    ],
)
def test_errors_in_the_stream_end_it(event_bytes, kind, reason):
    record, reader = read(text("a"), event_bytes, text("too late", "stop"), DONE)
    assert (record.error_kind, record.ended_s, record.arrivals_s) == (kind, 2, [1])
    assert reader.is_over
    if reason is not None:
        assert record.error == reason


def test_nothing_after_done_counts():
    record, reader = read(text("a", "stop"), DONE + text("b"), event(error="late"))
    assert (record.arrivals_s, record.error, record.ended_s) == ([1], None, 2)
    assert reader.is_over


def test_text_is_kept_where_it_is_wanted():
    said = (text("one "), delta(reasoning_content="hm"), delta(content="two"), DONE)
    assert read(*said, wants_text=True)[1].text == "one two"
    assert read(*said)[1].text == ""


def test_a_whole_answer_is_one_arrival_and_no_stream():
    record = Record(0, 0.0, 8)
    reader = AnswerReader(record, wants_text=True)
    body = {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 4}}
    reader.whole(json.dumps(body).encode(), 5.0)
    assert (record.is_streamed, record.arrivals_s, record.ended_s, record.output_tokens, record.arrival_tokens) == (False, [5], 5, 4, None)
    assert (reader.text, record.is_whole) == ("all", True)


@pytest.mark.parametrize(("body", "kind"), [(b"<html>", "malformed"), (b"{}", "malformed"), (b'{"error": {"message": "no"}}', "reported")])
def test_a_whole_answer_that_is_none(body, kind):
    record = Record(0, 0.0, 8)
    AnswerReader(record).whole(body, 5.0)
    assert (record.error_kind, record.ended_s, record.arrivals_s) == (kind, 5, [])


def test_the_first_failure_counts_and_none_after_a_whole_answer():
    record = Record(0, 0.0, 8)
    fail(record, "broken", "first", 1.0)
    fail(record, "timeout", "second", 2.0)
    assert (record.error_kind, record.error, record.ended_s) == ("broken", "first", 1)
    whole, _ = read(text("a", "stop"), DONE)
    fail(whole, "timeout", "late", 9.0)
    assert whole.is_whole


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "no reason given"), (b"plain\n text", "plain text"), (b'{"error": {"message": "m"}}', "m"), (b'{"other": 1}', '{"other": 1}')],
)
def test_reasons(body, reason):
    assert reason_in(body) == reason


def test_reasons_are_cut():
    assert len(one_line("word " * 1000)) == 300
    assert one_line(b"\xff\xfe") == "\ufffd\ufffd"
