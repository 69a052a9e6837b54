"""What `tokenport invoke` writes: the answer's text as it comes, or its JSON, and at the end a line about times and usage."""

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from serving.engine.interface import Chunks
from serving.errors import NoAnswer


class Transcript:
    """One answer. `started_s`: when it was asked for, on `clock`. Of a terminal, `out` gets no control characters but line feeds and tabs:
    a model's words must not move its cursor or rename its window."""

    def __init__(self, out: TextIO, *, shows_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._shows_json = shows_json
        self._clock = clock
        self._started_s = clock()
        self._first_s: float | None = None
        self._last_s = self._started_s
        self._finish_reason: str | None = None
        self._usage = _Usage(None, None)
        self._is_at_line_start = True

    async def stream(self, chunks: Chunks) -> None:
        """Write a streamed answer. Raises NoAnswer where it ends in an error, or is none of OpenAI's."""
        try:
            async for text in chunks:
                chunk = json.loads(text)
                if "error" in chunk:
                    raise NoAnswer(chunk["error"]["message"])
                self._take(_piece(chunk, "delta"), text)
        finally:
            await chunks.aclose()
            self._end_line()

    def whole(self, answer: bytes) -> None:
        """Write an answer that came in one piece. Raises NoAnswer for one that is none of OpenAI's."""
        fields = json.loads(answer)
        if not fields["choices"]:
            raise NoAnswer("the answer has no choice in it")
        self._take(_piece(fields, "message"), answer.decode())
        self._first_s = None
        self._end_line()

    def summary(self) -> str:
        """Times, rates and usage, as far as they are known, on one line."""
        total_s, (prompt, output) = self._last_s - self._started_s, self._usage
        told = [] if self._first_s is None else [f"first token after {self._first_s - self._started_s:.2f} s"]
        told.append(f"{total_s:.2f} s in all")
        if (rate := self._tokens_per_s(output, total_s)) is not None:
            told.append(f"{rate:.1f} tokens/s")
        told.append("usage not told" if output is None else f"{prompt} prompt and {output} completion tokens")
        return ", ".join(told) + (f", finished by {self._finish_reason}" if self._finish_reason else "")

    def _tokens_per_s(self, num_tokens: int | None, total_s: float) -> float | None:
        """Of a stream, after its first token; of one piece, of the whole time."""
        if self._first_s is None:
            return num_tokens / total_s if num_tokens and total_s else None
        streaming_s = self._last_s - self._first_s
        return (num_tokens - 1) / streaming_s if num_tokens and num_tokens > 1 and streaming_s else None

    def _take(self, piece: "_Piece", text: str) -> None:
        now_s = self._clock()
        if piece.says_something:
            self._first_s = now_s if self._first_s is None else self._first_s
            self._last_s = now_s
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._usage = piece.usage or self._usage
        self._write(f"{text}\n" if self._shows_json else piece.content)

    def _write(self, text: str) -> None:
        if text:
            # What the other side cannot have meant, and what the terminal has no letters for, is written out too.
            encoding = self._out.encoding or "utf-8"
            writable = text.encode(encoding, "backslashreplace").decode(encoding)
            self._out.write(printable(writable) if self._out.isatty() else writable)
            self._out.flush()
            self._is_at_line_start = text.endswith("\n")

    def _end_line(self) -> None:
        if not self._is_at_line_start:
            self._write("\n")


class _Usage(NamedTuple):
    prompt: int | None
    output: int | None


class _Piece(NamedTuple):
    """Of an answer what is written and counted."""

    content: str
    says_something: bool
    finish_reason: str | None
    usage: _Usage | None


def _piece(answer: dict[str, Any], part: str) -> _Piece:
    """`part`: where its first choice has what is said. Raises NoAnswer."""
    try:
        choice = answer["choices"][0] if answer["choices"] else {}
        said, usage = choice.get(part) or {}, answer.get("usage") or {}
        says_something = any(value for name, value in said.items() if name != "role")
        content, finish_reason = said.get("content") or "", choice.get("finish_reason")
        counted = _Usage(usage.get("prompt_tokens"), usage.get("completion_tokens")) if usage else None
    except (AttributeError, LookupError, TypeError) as error:
        raise NoAnswer("the answer is none of OpenAI's") from error
    if not isinstance(content, str) or not all(count is None or isinstance(count, int) for count in counted or ()):
        raise NoAnswer("the answer is none of OpenAI's")
    return _Piece(content, says_something, finish_reason, counted)


def printable(text: str) -> str:
    """`text` with its control characters written out, such as `\\x1b`."""
    return "".join(f"\\x{ord(character):02x}" if _moves_a_terminal(character) else character for character in text)


def _moves_a_terminal(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
