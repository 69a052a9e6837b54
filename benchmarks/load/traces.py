"""Reads traces of real traffic to replay. The format is told by the content:

Tokenport's own: JSON lines of at_s, output_tokens and input_tokens, or prompt or messages in its place; conversation is optional.
Mooncake: JSON lines of timestamp (ms), input_length, output_length, hash_ids (a number a block of 512 tokens; equal ones are shared).
Azure LLM inference: CSV of TIMESTAMP, ContextTokens, GeneratedTokens. BurstGPT: CSV with Timestamp (s), Request tokens, Response tokens.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks.load.plan import Prompt
from benchmarks.load.prompts_file import filled_lines, json_object, line_error, prompt_field, refuse_unknown, whole_number
from benchmarks.load.quantities import wrong

TraceFormat = Literal["tokenport", "mooncake", "azure", "burstgpt"]
MOONCAKE_BLOCK_TOKENS = 512
"""What one of the published trace's hash_ids stands for."""

_OWN_FIELDS = ("at_s", "input_tokens", "output_tokens", "prompt", "messages", "conversation")
_KNOWN = (
    'must be JSON lines of {"at_s", "input_tokens", "output_tokens"} (Tokenport\'s own), JSON lines of {"timestamp", "input_length", '
    '"output_length", "hash_ids"} (Mooncake), a CSV with TIMESTAMP,ContextTokens,GeneratedTokens (Azure LLM inference) or a CSV with '
    "Timestamp, Request tokens and Response tokens (BurstGPT)"
)


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One request of a trace. `at_s` is the trace's own time; `input_tokens` None: what `prompt` has; no `hash_ids`: nothing is shared."""

    at_s: float
    output_tokens: int
    input_tokens: int | None = None
    prompt: Prompt | None = None
    conversation: str | None = None
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace's requests, by time. `num_left_out`: requests that failed when it was taken, which have no answer to replay."""

    format: TraceFormat
    entries: tuple[TraceEntry, ...]
    num_left_out: int = 0


def read_trace(path: Path, limit: int | None = None) -> Trace:
    """The first `limit` requests that a file has, by time.

    Raises:
        BenchmarkError: the file cannot be read, is none of the formats, or a line is malformed; names the file, the line and the field.
    """
    lines = filled_lines(path, "--trace")
    first = next(lines, None)
    if first is None:
        raise wrong("--trace", path, "the file is empty")
    kind = _format_of(path, *first)
    reader = _READERS[kind]
    rows = _json_rows(path, first, lines) if kind in ("tokenport", "mooncake") else _csv_rows(path, first[1], lines)
    num_left_out = 0
    entries: list[TraceEntry] = []
    for number, row in rows:
        entry = reader(row, path, number)
        if entry is None:
            num_left_out += 1
        else:
            entries.append(entry)
        # The public ones have millions of lines.
        if len(entries) == limit:
            break
    if not entries:
        raise wrong("--trace", path, "the trace has no requests")
    return Trace(kind, tuple(sorted(entries, key=lambda entry: entry.at_s)), num_left_out)


def _format_of(path: Path, number: int, line: str) -> TraceFormat:
    if line.startswith("{"):
        fields = json_object(path, number, line)
        if "at_s" in fields:
            return "tokenport"
        if "timestamp" in fields and "input_length" in fields:
            return "mooncake"
    columns = set(_columns(line))
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= columns:
        return "azure"
    if {"Timestamp", "Request tokens", "Response tokens"} <= columns:
        return "burstgpt"
    raise wrong("--trace", path, f"{_KNOWN}; its first line is {line[:80]!r}")


def _columns(line: str) -> list[str]:
    return [column.strip() for column in next(csv.reader([line]))]


def _json_rows(path: Path, first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in (first, *lines):
        yield number, json_object(path, number, line)


def _csv_rows(path: Path, header: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    columns = _columns(header)
    for number, line in lines:
        values = next(csv.reader([line]))
        if len(values) != len(columns):
            raise line_error(path, number, f"has {len(values)} fields, and the header {len(columns)}")
        yield number, dict(zip(columns, (value.strip() for value in values), strict=True))


def _own(fields: Mapping[str, Any], path: Path, number: int) -> TraceEntry:
    refuse_unknown(fields, _OWN_FIELDS, path, number)
    prompt = prompt_field(fields, path, number)
    if prompt is not None and "input_tokens" in fields:
        raise line_error(path, number, "has both input_tokens and the prompt itself: it must have one of them")
    conversation = fields.get("conversation")
    if not isinstance(conversation, str | int | None) or isinstance(conversation, bool):
        raise line_error(path, number, f"conversation must be a text or a whole number, and is {json.dumps(conversation)}")
    return TraceEntry(
        at_s=_seconds(fields, "at_s", path, number),
        output_tokens=whole_number(fields, "output_tokens", path, number, least=1),
        input_tokens=None if prompt is not None else whole_number(fields, "input_tokens", path, number, least=1),
        prompt=prompt,
        conversation=None if conversation is None else str(conversation),
    )


def _mooncake(fields: Mapping[str, Any], path: Path, number: int) -> TraceEntry:
    input_tokens = whole_number(fields, "input_length", path, number, least=1)
    hash_ids = fields.get("hash_ids", [])
    if not isinstance(hash_ids, list) or not all(isinstance(value, int) and not isinstance(value, bool) for value in hash_ids):
        raise line_error(path, number, "hash_ids must be a list of whole numbers")
    num_blocks = math.ceil(input_tokens / MOONCAKE_BLOCK_TOKENS)
    if hash_ids and len(hash_ids) != num_blocks:
        raise line_error(
            path,
            number,
            f"hash_ids must have {num_blocks} numbers, one for each {MOONCAKE_BLOCK_TOKENS} of input_length, and has {len(hash_ids)}",
        )
    return TraceEntry(
        at_s=_seconds(fields, "timestamp", path, number) / 1000,
        output_tokens=whole_number(fields, "output_length", path, number, least=1),
        input_tokens=input_tokens,
        hash_ids=tuple(hash_ids),
    )


def _azure(fields: Mapping[str, str], path: Path, number: int) -> TraceEntry | None:
    try:
        at = datetime.fromisoformat(fields["TIMESTAMP"])
    except ValueError as error:
        raise line_error(path, number, f"TIMESTAMP must be a date and time, and is {fields['TIMESTAMP']!r}") from error
    # Only differences count, so whatever zone the file means by a bare time is as good as any other.
    at_s = (at.replace(tzinfo=None) - datetime(2020, 1, 1)).total_seconds()
    return _answered(at_s, _column(fields, "ContextTokens", path, number), _column(fields, "GeneratedTokens", path, number))


def _burstgpt(fields: Mapping[str, str], path: Path, number: int) -> TraceEntry | None:
    try:
        at_s = float(fields["Timestamp"])
    except ValueError as error:
        raise line_error(path, number, f"Timestamp must be a number of seconds, and is {fields['Timestamp']!r}") from error
    return _answered(at_s, _column(fields, "Request tokens", path, number), _column(fields, "Response tokens", path, number))


def _answered(at_s: float, input_tokens: int, output_tokens: int) -> TraceEntry | None:
    """None for a request that got no answer: zero response tokens mark a failure in BurstGPT."""
    return TraceEntry(at_s, output_tokens, max(input_tokens, 1)) if output_tokens > 0 else None


def _column(fields: Mapping[str, str], name: str, path: Path, number: int) -> int:
    written = fields[name].removesuffix(".0")
    if not (written.isascii() and written.isdigit()):
        raise line_error(path, number, f"{name} must be a whole number, and is {fields[name]!r}")
    return int(written)


def _seconds(fields: Mapping[str, Any], name: str, path: Path, number: int) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise line_error(path, number, f"{name} must be a number of at least zero, and is {json.dumps(value)}")
    return float(value)


_READERS: Mapping[TraceFormat, Callable[[Mapping[str, Any], Path, int], TraceEntry | None]] = {
    "tokenport": _own,
    "mooncake": _mooncake,
    "azure": _azure,
    "burstgpt": _burstgpt,
}
