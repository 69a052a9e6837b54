"""Streamed chunks: every form that servers send, and the same chunks however the bytes are split."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.sse import ChunkParser

FIRST, SECOND = '{"text": "größer 漢字 🙂"}', '{"text": "b [DONE] data: {}"}'
FORMS = {
    "events": f"data: {FIRST}\n\ndata: {SECOND}\n\ndata: [DONE]\n\n",
    "events without the space": f"data:{FIRST}\n\ndata:{SECOND}\n\ndata:[DONE]\n\n",
    "events with carriage returns": f"data: {FIRST}\r\n\r\ndata: {SECOND}\r\n\r\ndata: [DONE]\r\n\r\n",
    "events with names and comments": f": ping\n\nevent: message\nid: 1\ndata: {FIRST}\n\ndata: {SECOND}\n\ndata: [DONE]\n\n",
    "lines": f"{FIRST}\n{SECOND}\n",
    "lines with a last one that has no end": f"{FIRST}\n{SECOND}",
    "events with a last one that has no end": f"data: {FIRST}\n\ndata: {SECOND}",
    "[DONE] behind the last event": f"data: {FIRST}\n\ndata: {SECOND}[DONE]",
    "[DONE] as a field behind the last event": f"data: {FIRST}\n\ndata: {SECOND}data: [DONE]\n\n",
    "[DONE] behind the last line": f"{FIRST}\n{SECOND}[DONE]",
    "[DONE] on a bare line": f"data: {FIRST}\n\ndata: {SECOND}\n[DONE]\n",
    "something after the end": f"data: {FIRST}\n\ndata: {SECOND}\n\ndata: [DONE]\n\ndata: {FIRST}\n\n",
}


def parsed(*reads: bytes) -> tuple[list[str], bool]:
    parser = ChunkParser()
    chunks = [chunk for read in reads for chunk in parser.feed(read)] + parser.finish()
    return chunks, parser.is_done


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_the_form_makes_no_difference(text):
    assert parsed(text.encode()) == ([FIRST, SECOND], "[DONE]" in text.replace(FIRST, "").replace(SECOND, ""))


@given(text=st.sampled_from(list(FORMS.values())), cuts=st.lists(st.integers(0, 300)))
def test_nor_does_the_place_where_the_bytes_are_split(text, cuts):
    encoded = text.encode()
    places = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})
    reads = [encoded[start:end] for start, end in itertools.pairwise(places)]
    assert parsed(*reads) == parsed(encoded)


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange(noise):
    chunks, _ = parsed(noise)
    assert all("\n" not in chunk for chunk in chunks)


def test_a_chunk_is_given_as_soon_as_it_is_whole():
    parser = ChunkParser()
    assert parser.feed(f"data: {FIRST}\n".encode()) == []
    assert parser.feed(b"\n") == [FIRST]
    assert parser.feed(f"{SECOND}\n".encode()) == [SECOND]


def test_the_lines_of_one_event_are_one_chunk_on_one_line():
    [chunk], _ = parsed(b'data: {"a":\ndata: 1}\n\n')
    assert "\n" not in chunk
    assert json.loads(chunk) == {"a": 1}


@pytest.mark.parametrize("cut_off", ['data: {"text": "b', '{"text": "b', 'data: {"text": "b [DONE]', "data: ", "dat"])
def test_a_chunk_that_the_end_cuts_off_is_dropped(cut_off):
    assert parsed(f"data: {FIRST}\n\n{cut_off}".encode()) == ([FIRST], False)
