"""Server-sent events come out the same however the network splits them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.client.sse import Event, EventParser

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
VALUES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=12)


def events_of(*reads: bytes) -> list[Event]:
    parser = EventParser()
    return [event for read in reads for event in parser.feed(read)] + parser.finish()


@st.composite
def streams(draw) -> tuple[bytes, list[Event]]:
    """A stream in any spelling, and the events that it holds."""
    text, expected = draw(st.sampled_from(["", "\ufeff"])), []
    for _ in range(draw(st.integers(0, 4))):
        lines = draw(st.lists(VALUES, max_size=3))
        name = draw(st.one_of(st.none(), VALUES))
        end = draw(LINE_ENDS)
        spelled = [f"data:{draw(st.sampled_from([' ', '']))}{line}" if not line.startswith(" ") else f"data: {line}" for line in lines]
        if name is not None:
            spelled.append(f"event: {name}")
        spelled += [f":{comment}" for comment in draw(st.lists(VALUES, max_size=2))]
        spelled += draw(st.lists(st.sampled_from(["id: 7", "retry: 10", "datum: no", "data2"]), max_size=2))
        spelled += [] if lines or name is not None else ["data"]
        text += end.join([*spelled, "", ""])
        if lines or name is None:
            expected.append(Event(name or "", "\n".join(lines).encode()))
    return text.encode(), expected


@given(streams(), st.lists(st.integers(0, 300), max_size=12))
def test_every_split_of_every_spelling_gives_the_same_events(stream, cuts):
    data, expected = stream
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert events_of(*(data[start:end] for start, end in itertools.pairwise(places))) == expected


@given(streams())
def test_byte_by_byte(stream):
    data, expected = stream
    assert events_of(*(data[place : place + 1] for place in range(len(data)))) == expected


def test_an_event_is_there_as_soon_as_its_empty_line_is():
    parser = EventParser()
    assert parser.feed(b'data: {"a": 1}\n\n') == [Event("", b'{"a": 1}')]
    assert parser.feed(b"data: 2\r\n\r") == [Event("", b"2")]
    assert parser.feed(b"\ndata: 3\n\n") == [Event("", b"3")]


@pytest.mark.parametrize(("rest", "expected"), [(b"data: [DONE]\n", [Event("", b"[DONE]")]), (b"data: [DO", []), (b": comment\n", [])])
def test_the_end_of_the_stream_completes_whole_lines_only(rest, expected):
    assert events_of(rest) == expected
