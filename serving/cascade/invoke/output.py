"""What `tokenport invoke` writes: the answer's text as it comes, or its JSON, and at the end a line about times and usage."""

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any, TextIO

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
        self._usage: dict[str, Any] = {}
        self._is_at_line_start = True

    async def stream(self, chunks: Chunks) -> None:
        """Write a streamed answer. Raises NoAnswer where it ends in an error."""
        try:
            async for text in chunks:
                chunk = json.loads(text)
                if "error" in chunk:
                    raise NoAnswer(chunk["error"]["message"])
                self._take(chunk, text, "delta")
        finally:
            await chunks.aclose()
            self._end_line()

    def whole(self, answer: bytes) -> None:
        """Write an answer that came in one piece."""
        self._take(json.loads(answer), answer.decode(), "message")
        self._first_s = None
        self._end_line()

    def summary(self) -> str:
        """Times, rates and usage, as far as they are known, on one line."""
        total_s, prompt, output = self._last_s - self._started_s, self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
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

    def _take(self, answer: dict[str, Any], text: str, part: str) -> None:
        now_s = self._clock()
        choice = answer["choices"][0] if answer["choices"] else {}
        said = choice.get(part) or {}
        if any(value for name, value in said.items() if name != "role"):
            self._first_s = now_s if self._first_s is None else self._first_s
            self._last_s = now_s
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._usage = answer.get("usage") or self._usage
        self._write(f"{text}\n" if self._shows_json else said.get("content") or "")

    def _write(self, text: str) -> None:
        if text:
            self._out.write(printable(text) if self._out.isatty() else text)
            self._out.flush()
            self._is_at_line_start = text.endswith("\n")

    def _end_line(self) -> None:
        if not self._is_at_line_start:
            self._write("\n")


def printable(text: str) -> str:
    """`text` with its control characters written out, such as `\\x1b`."""
    return "".join(f"\\x{ord(character):02x}" if _moves_a_terminal(character) else character for character in text)


def _moves_a_terminal(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
