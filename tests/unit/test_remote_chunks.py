"""The streamed answer of a model elsewhere: held until it says something, and never without an end."""

import asyncio
import json

import pytest

from serving.errors import InvalidRequest, TierFailure
from serving.remote_chunks import RemoteChunks, checked_whole, openai_chunks

LONG_S = 60.0


def chunk(delta: dict | None = None, reason: str | None = None, index: int = 0, **fields) -> str:
    return json.dumps({"choices": [{"index": index, "delta": delta or {}, "finish_reason": reason, **fields}]})


ROLE, WORD, END = chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk(reason="stop")


class Source:
    """A generator of texts, of which an exception is raised and a number waited for; `is_closed` when it was ended."""

    def __init__(self, *texts):
        self.texts, self.is_closed, self.num_given = texts, False, 0

    async def run(self):
        try:
            for text in self.texts:
                if isinstance(text, Exception):
                    raise text
                if isinstance(text, float):
                    await asyncio.sleep(text)
                else:
                    self.num_given += 1
                    yield text
        finally:
            self.is_closed = True

    async def opened(self, deadline_s=LONG_S):
        return await RemoteChunks("it", self.run(), asyncio.get_running_loop().time() + deadline_s).hold_first()


async def test_nothing_is_given_before_it_says_something():
    source = Source(ROLE, WORD, END)
    chunks = await source.opened()
    assert source.num_given == 2
    assert [text async for text in chunks] == [ROLE, WORD, END]
    assert source.is_closed


@pytest.mark.parametrize(
    "word",
    [
        chunk({"content": "a"}),
        chunk({"reasoning": "a"}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk(reason="length"),
        chunk(text="a"),
    ],
)
async def test_words_calls_thoughts_and_the_end_say_something(word):
    source = Source(ROLE, word, WORD)
    await source.opened()
    assert source.num_given == 2


@pytest.mark.parametrize("before", [(), (ROLE,)])
async def test_a_failure_before_is_raised_and_the_source_closed(before):
    source = Source(*before, TierFailure("it is full", reason="throttled"))
    with pytest.raises(TierFailure, match="it is full"):
        await source.opened()
    assert source.is_closed


async def test_a_failure_after_is_the_last_chunk():
    source = Source(WORD, TierFailure("it broke", reason="broken"))
    first, last = [json.loads(text) async for text in await source.opened()]
    assert (first, last["error"]["message"]) == (json.loads(WORD), "it broke")
    assert source.is_closed


async def test_the_deadline_ends_the_wait_for_the_first_word():
    source = Source(ROLE, LONG_S)
    with pytest.raises(TierFailure) as failure:
        await source.opened(deadline_s=0.05)
    assert (failure.value.reason, source.is_closed) == ("timeout", True)


async def test_the_deadline_ends_the_rest():
    source = Source(WORD, LONG_S)
    texts = [text async for text in await source.opened(deadline_s=0.5)]
    assert (len(texts), "in time" in texts[-1], source.is_closed) == (2, True, True)


async def test_leaving_closes_the_source():
    source = Source(WORD, LONG_S)
    chunks = await source.opened()
    await chunks.aclose()
    assert source.is_closed
    assert [text async for text in chunks] == [WORD]


async def test_cancelling_the_wait_closes_the_source():
    source = Source(LONG_S)
    opening = asyncio.create_task(source.opened())
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert source.is_closed


async def read(*texts: str) -> list[str]:
    source = Source(*(text.encode() for text in texts))
    try:
        return [text async for text in openai_chunks("it", source.run())]
    finally:
        assert source.is_closed


@pytest.mark.parametrize(
    "text",
    [
        f"data: {WORD}\n\ndata: {END}\n\ndata: [DONE]\n\n",
        f"data: {WORD}\n\ndata: {END}[DONE]",
        f"data: {WORD}\n\ndata: {END}\n\n",
        f"{WORD}\n{END}",
    ],
)
async def test_an_end_that_was_told_in_either_way_is_one(text):
    assert await read(text) == [WORD, END]


async def test_what_follows_the_end_is_not_waited_for():
    assert await read("data: [DONE]\n\n", f"data: {WORD}\n\n") == []


@pytest.mark.parametrize("texts", [(), (f"data: {WORD}\n\n",), (f"{WORD}\n{chunk(index=1)}\n{END}\n",), (f"data: {WORD}\n\ndata: [DO",)])
async def test_a_stream_that_ends_while_a_choice_is_open_is_broken(texts):
    with pytest.raises(TierFailure, match="in the middle") as failure:
        await read(*texts)
    assert failure.value.reason == "broken"


@pytest.mark.parametrize(
    "text", ["data: no JSON\n\n", "data: 1\n\n", '{"token": {"text": "a"}}\n', '{"choices": [{"message": {"content": "whole"}}]}']
)
async def test_what_is_no_chunk_is_a_failure(text):
    with pytest.raises(TierFailure, match="something else"):
        await read(text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "it is wrong", "code": 400}, InvalidRequest),
        ({"message": "it is wrong", "code": 503}, TierFailure),
        ({"message": "it is wrong", "code": None}, TierFailure),
        ("it is wrong", TierFailure),
    ],
)
async def test_an_error_told_as_a_chunk_is_raised(error, expected):
    with pytest.raises(expected, match="it is wrong"):
        await read(f"data: {json.dumps({'error': error})}\n\n")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"status": "ok"}'])
def test_a_whole_answer_has_choices(body):
    with pytest.raises(TierFailure, match="something else"):
        checked_whole("it", body)
