"""Amazon's event streams: the same events however the bytes are split, and damage told."""

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container.conformance.runtime.event_stream import encode_exception, encode_message, encode_payload_part
from serving.aws.event_stream import Event, EventStreamParser
from serving.errors import TierFailure
from serving.sse import ChunkParser

CHUNKS = ['{"text": "größer 漢字 🙂"}', '{"text": "data: [DONE]"}', '{"text": ""}']
EXCEPTION = encode_exception("ModelStreamError", b'{"ErrorCode": "StreamBroken"}')


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def events(reads: list[bytes]) -> list[Event]:
    parser = EventStreamParser("it")
    return [event for read in reads for event in parser.feed(read)]


CUTS = st.lists(st.integers(0, 10_000), max_size=30)


@given(payloads=st.lists(st.binary(max_size=50), max_size=5), cuts=CUTS)
def test_the_same_events_however_the_bytes_are_split(payloads, cuts):
    stream = b"".join(map(encode_payload_part, payloads)) + EXCEPTION
    expected = [Event("PayloadPart", payload, False) for payload in payloads]
    assert events(split(stream, cuts)) == [*expected, Event("ModelStreamError", b'{"ErrorCode": "StreamBroken"}', True)]


@given(of_lines=CUTS, of_frames=CUTS, is_sse=st.booleans())
def test_the_same_chunks_however_the_answer_is_split_into_parts_and_those_on_their_way(of_lines, of_frames, is_sse):
    text = "".join(f"data: {chunk}\n\n" if is_sse else f"{chunk}\n" for chunk in CHUNKS)
    stream = b"".join(map(encode_payload_part, split(text.encode(), of_lines)))
    parser = ChunkParser()
    read = [chunk for event in events(split(stream, of_frames)) for chunk in parser.feed(event.payload)]
    assert [json.loads(chunk) for chunk in read + parser.finish()] == [json.loads(chunk) for chunk in CHUNKS]


@given(place=st.integers(0, 10_000), cuts=CUTS, bit=st.integers(0, 7))
def test_a_damaged_bit_makes_no_other_event_of_a_part(place, cuts, bit):
    stream = bytearray(encode_payload_part(b"first") + encode_payload_part(b"second") + EXCEPTION)
    stream[place % len(stream)] ^= 1 << bit
    whole = [Event("PayloadPart", b"first", False), Event("PayloadPart", b"second", False)]
    parser, seen = EventStreamParser("it"), []
    with contextlib.suppress(TierFailure):
        for read in split(bytes(stream), cuts):
            for event in parser.feed(read):
                seen.append(event)
    assert seen == whole[: len(seen)]


@given(st.binary(max_size=200))
def test_noise_is_damage_or_not_enough(noise):
    with contextlib.suppress(TierFailure):
        assert events([noise]) == []


def test_an_event_that_the_end_cuts_off_never_comes_out():
    assert events([encode_payload_part(b"first"), EXCEPTION[:-1]]) == [Event("PayloadPart", b"first", False)]


@pytest.mark.parametrize("kind", ["error", "exception"])
def test_an_error_has_its_code_for_a_name(kind):
    [event] = events([encode_message({":message-type": kind, f":{kind}-{'code' if kind == 'error' else 'type'}": "Throttling"}, b"{}")])
    assert event == Event("Throttling", b"{}", True)
