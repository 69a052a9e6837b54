"""The frames written are those that botocore reads, whatever is in them and however they arrive."""

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from container.conformance.runtime.event_stream import encode_exception, encode_message, encode_payload_part

HEADERS = st.dictionaries(st.text(min_size=1, max_size=60), st.text(max_size=2000), max_size=8)
MESSAGES = st.lists(st.tuples(HEADERS, st.binary(max_size=5000)), min_size=1, max_size=5)


def read(data: bytes, cut: int) -> list[tuple[dict[str, str], bytes]]:
    buffer = EventStreamBuffer()
    messages = []
    for start in range(0, len(data), cut):
        buffer.add_data(data[start : start + cut])
        messages += [(message.headers, message.payload) for message in buffer]
    return messages


@given(MESSAGES, st.integers(min_value=1, max_value=400))
def test_botocore_reads_back_what_was_written_however_it_is_cut(messages, cut):
    assert read(b"".join(encode_message(headers, payload) for headers, payload in messages), cut) == messages


@given(st.binary(max_size=300), st.data())
def test_a_flipped_bit_in_the_payload_is_noticed(payload, data):
    message = bytearray(encode_payload_part(payload + b"x"))
    at = data.draw(st.integers(min_value=len(message) - 5 - len(payload), max_value=len(message) - 5))
    message[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    with pytest.raises(ChecksumMismatch):
        read(bytes(message), len(message))


def test_a_part_and_an_exception_have_the_headers_of_the_protocol():
    part, exception = read(encode_payload_part(b"data") + encode_exception("ModelStreamError", b"{}"), 1000)
    assert part == ({":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}, b"data")
    assert exception == (
        {":exception-type": "ModelStreamError", ":content-type": "application/json", ":message-type": "exception"},
        b"{}",
    )
