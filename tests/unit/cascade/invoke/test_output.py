"""What `tokenport invoke` writes."""

import io
import json
from collections.abc import AsyncIterator

import pytest

from serving.cascade.invoke.output import Transcript, printable
from serving.errors import NoAnswer


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Chunks:
    """Chunks at the times that go with them; sets the clock as they are taken."""

    def __init__(self, *timed: tuple[float, dict]) -> None:
        self.timed, self.now_s, self.is_closed = timed, 0.0, False

    async def __aiter__(self) -> AsyncIterator[str]:
        for at_s, chunk in self.timed:
            self.now_s = at_s
            yield json.dumps(chunk)

    async def aclose(self) -> None:
        self.is_closed = True


def word(text: str, reason: str | None = None, **delta) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": reason}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
ROLE = word("", role="assistant")
ANSWER = ((1.0, ROLE), (2.0, word("a")), (3.0, word(" b")), (4.0, word(" c")), (5.0, word("", "length")), (6.0, USAGE))


async def written(*timed, out=None, shows_json=False):
    chunks = Chunks(*timed)
    out = out or io.StringIO()
    transcript = Transcript(out, shows_json=shows_json, clock=lambda: chunks.now_s)
    try:
        await transcript.stream(chunks)
    finally:
        assert chunks.is_closed
    return out.getvalue(), transcript.summary()


async def test_the_text_and_a_line_end():
    text, _ = await written(*ANSWER)
    assert text == "a b c\n"


async def test_a_text_that_ends_its_line_gets_no_other_end():
    assert (await written((1.0, word("a\n"))))[0] == "a\n"


async def test_json_is_a_chunk_a_line():
    text, _ = await written(*ANSWER, shows_json=True)
    assert [json.loads(line) for line in text.splitlines()] == [chunk for _, chunk in ANSWER]


async def test_the_rate_is_that_after_the_first_token():
    _, summary = await written(*ANSWER)
    assert summary == "first token after 2.00 s, 4.00 s in all, 1.0 tokens/s, 7 prompt and 3 completion tokens, finished by length"


async def test_without_usage_no_rate_is_made_up():
    _, summary = await written(*ANSWER[:-1])
    assert summary == "first token after 2.00 s, 4.00 s in all, usage not told, finished by length"


def test_an_answer_in_one_piece_has_no_first_token():
    out, times = io.StringIO(), iter([0.0, 2.0])
    transcript = Transcript(out, shows_json=False, clock=lambda: next(times))
    transcript.whole(
        json.dumps({"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}], **{"usage": USAGE["usage"]}}).encode()
    )
    assert out.getvalue() == "a b\n"
    assert transcript.summary() == "2.00 s in all, 1.5 tokens/s, 7 prompt and 3 completion tokens, finished by stop"


async def test_an_error_ends_the_line_and_is_raised():
    out = io.StringIO()
    with pytest.raises(NoAnswer, match="it broke"):
        await written((1.0, word("a")), (2.0, {"error": {"message": "it broke"}}), out=out)
    assert out.getvalue() == "a\n"


async def test_a_terminal_gets_no_control_characters():
    text, _ = await written((1.0, word("\x1b]0;title\x07 größer\t漢字 🙂\r\x9b2J\x7f\n")), out=Terminal())
    assert text == "\\x1b]0;title\\x07 größer\t漢字 🙂\\x0d\\x9b2J\\x7f\n"


async def test_what_the_output_has_no_letters_for_is_written_out():
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", newline="")
    transcript = Transcript(out, shows_json=False)
    await transcript.stream(Chunks((1.0, word("größe 漢 \ud800"))))
    assert out.buffer.getvalue().decode("latin-1") == "größe \\u6f22 \\ud800\n"


@pytest.mark.parametrize(
    "chunk",
    [
        word(5),
        {"choices": [{"delta": 3}]},
        {"choices": [3]},
        {"choices": 3},
        {"choices": [{"delta": {"content": "a"}}], "usage": 3},
        {"choices": [], "usage": {"completion_tokens": "x"}},
    ],
)
async def test_an_answer_that_is_none_of_openais_is_a_failure(chunk):
    with pytest.raises(NoAnswer, match="none of OpenAI's"):
        await written((1.0, chunk))


@pytest.mark.parametrize(("answer", "told"), [({"choices": []}, "no choice"), ({"choices": [3]}, "none of OpenAI's")])
def test_a_whole_answer_that_says_nothing_is_a_failure(answer, told):
    with pytest.raises(NoAnswer, match=told):
        Transcript(io.StringIO(), shows_json=False).whole(json.dumps(answer).encode())


async def test_a_file_gets_what_came():
    assert (await written((1.0, word("\x1b[1m\n"))))[0] == "\x1b[1m\n"


def test_what_can_be_printed_stays():
    text = "größer 漢字 👩‍🚀 é́ \u00a0"
    assert printable(text) == text
