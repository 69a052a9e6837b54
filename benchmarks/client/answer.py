"""What an answer says, event by event, into its `Record`: pieces of output with their times, usage, and how it ended.

One reader for HTTP and SageMaker, streams and whole answers. Types hold only what is measured; everything else in an event is skipped.
"""

from typing import Any

import msgspec

from benchmarks.client.sse import Event, EventParser
from benchmarks.measuring.record import Record

_DONE = b"[DONE]"
_MAX_REASON_LENGTH = 300


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None
    message: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class AnswerReader:
    """Reads one answer into `record`; times are the record's own clock. `text` holds the answer's text where `wants_text` asked for it."""

    def __init__(self, record: Record, *, wants_text: bool = False) -> None:
        self._record = record
        self._wants_text = wants_text
        self._pieces: list[str] = []
        self._parser = EventParser()
        self._num_counted = 0
        self._is_counted_along = True
        self._is_done = False

    @property
    def text(self) -> str:
        """What the answer said, reasoning left out, as it goes into the next turn of a conversation."""
        return "".join(self._pieces)

    @property
    def is_over(self) -> bool:
        """Nothing more need be read: the stream said so, or it failed."""
        return self._is_done or self._record.error is not None

    def feed(self, read: bytes, at_s: float) -> None:
        """What came in one read of the network at `at_s`."""
        for event in self._parser.feed(read):
            self._take(event, at_s)

    def end_of_stream(self, at_s: float, cause: str = "the connection was closed") -> None:
        """Nothing more comes. An answer that said neither why it finished nor `[DONE]` was broken off."""
        for event in self._parser.finish():
            self._take(event, at_s)
        record = self._record
        if record.error is not None or self._is_done:
            return
        if record.finish_reason is not None:
            record.ended_s = at_s
        else:
            fail(record, "broken", f"the stream ended after {len(record.arrivals_s)} pieces, unfinished: {cause}", at_s)

    def whole(self, body: bytes, at_s: float) -> None:
        """An answer that came as one body."""
        record = self._record
        record.is_streamed = False
        chunk = self._parse(body, "", at_s)
        if chunk is None:
            return
        if not chunk.choices:
            fail(record, "malformed", f"the answer has no choices: {one_line(body)}", at_s)
            return
        record.arrivals_s.append(at_s)
        self._take_choices(chunk.choices)
        self._take_usage(chunk.usage)
        record.ended_s = at_s

    def _take(self, event: Event, at_s: float) -> None:
        if self.is_over:
            return
        if event.data == _DONE:
            self._is_done = True
            self._record.ended_s = at_s
            return
        chunk = self._parse(event.data, event.name, at_s)
        if chunk is None:
            return
        has_output = self._take_choices(chunk.choices) if chunk.choices else False
        num_new = self._take_usage(chunk.usage)
        # A token whose text is empty or held back (half a character) has still come, where the server counts along.
        if has_output or (chunk.choices and num_new > 0):
            self._record.arrivals_s.append(at_s)
            self._count_along(num_new if chunk.usage is not None else None)

    def _count_along(self, num_new: int | None) -> None:
        """How many tokens the piece brought. Only where the server tells it of every piece so far are the numbers kept."""
        if num_new is None or not self._is_counted_along:
            self._is_counted_along = False
            self._record.arrival_tokens = None
        elif self._record.arrival_tokens is None:
            self._record.arrival_tokens = [num_new]
        else:
            self._record.arrival_tokens.append(num_new)

    def _parse(self, data: bytes, name: str, at_s: float) -> _Chunk | None:
        try:
            chunk = _decode(data)
        except msgspec.DecodeError as error:
            kind = "reported" if name == "error" else "malformed"
            what = "" if name == "error" else f"event {len(self._record.arrivals_s) + 1} is not understood ({error}): "
            fail(self._record, kind, f"{what}{one_line(data)}", at_s)
            return None
        if chunk.error or chunk.object == "error" or name == "error":
            fail(self._record, "reported", reason_in(data), at_s)
            return None
        return chunk

    def _take_choices(self, choices: list[_Choice]) -> bool:
        has_output = False
        for choice in choices:
            if choice.finish_reason:
                self._record.finish_reason = choice.finish_reason
            delta = choice.delta or choice.message
            text = choice.text or (delta.content if delta is not None else None)
            if text or (delta is not None and (delta.reasoning_content or delta.reasoning or delta.tool_calls)):
                has_output = True
            if self._wants_text and isinstance(text, str):
                self._pieces.append(text)
        return has_output

    def _take_usage(self, usage: _Usage | None) -> int:
        """The server's counts; returns how many output tokens are new in them."""
        if usage is None:
            return 0
        record = self._record
        if usage.prompt_tokens is not None:
            record.prompt_tokens = usage.prompt_tokens
        if usage.prompt_tokens_details is not None:
            record.cached_tokens = usage.prompt_tokens_details.cached_tokens
        if usage.completion_tokens is None:
            return 0
        record.output_tokens = usage.completion_tokens
        num_new = usage.completion_tokens - self._num_counted
        self._num_counted = usage.completion_tokens
        return num_new


def fail(record: Record, kind: str, error: str, at_s: float) -> None:
    """Note how the request failed. The first failure counts, and none does after a whole answer."""
    if record.error is None and record.ended_s is None:
        record.error_kind, record.error, record.ended_s = kind, one_line(error), at_s


def reason_in(body: bytes) -> str:
    """The message in an error's body, in any of the usual shapes, else the body itself; one line."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return one_line(body) or "no reason given"
    for _ in range(2):
        if isinstance(found, dict):
            found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), found)
    return one_line(found if isinstance(found, str) else body) or "no reason given"


def one_line(text: str | bytes) -> str:
    """Cut and joined, so that it can stand in a table."""
    if isinstance(text, bytes):
        text = text[: 2 * _MAX_REASON_LENGTH].decode(errors="replace")
    return " ".join(text.split())[:_MAX_REASON_LENGTH]
