"""Reads `--prompts FILE`: JSON lines, {"prompt": TEXT} or {"messages": [...]} with an optional "max_tokens"; or plain text, one a line.

A file is JSON lines when its first line with anything on it begins with a brace. Empty lines are passed over.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.plan import Message, Prompt
from benchmarks.load.quantities import wrong
from serving.errors import BenchmarkError

_FIELDS = ("prompt", "messages", "max_tokens")


@dataclass(frozen=True, slots=True)
class FilePrompt:
    """One line of the file. `max_tokens` is None where the line leaves it to `--output-len`."""

    prompt: Prompt
    max_tokens: int | None = None


def read_prompts(path: Path) -> list[FilePrompt]:
    """All prompts of the file, in its order.

    Raises:
        BenchmarkError: the file cannot be read, is empty, or a line is malformed; names the file, the line and the field.
    """
    lines = list(filled_lines(path, "--prompts"))
    if not lines:
        raise wrong("--prompts", path, "the file has no prompts")
    if not lines[0][1].startswith("{"):
        return [FilePrompt(line) for _, line in lines]
    return [_prompt_of(json_object(path, number, line), path, number) for number, line in lines]


def filled_lines(path: Path, option: str) -> Iterator[tuple[int, str]]:
    """The lines that have anything on them, stripped, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(option, path, f"the file cannot be read: {error}") from error
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def json_object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    """The object on a line of JSON lines."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise line_error(path, number, f"is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise line_error(path, number, f"must be a JSON object, and is {line[:60]!r}")
    return fields


def line_error(path: Path, number: int, told: str) -> BenchmarkError:
    """`FILE line N told`."""
    return BenchmarkError(f"{path} line {number} {told}")


def prompt_field(fields: Mapping[str, Any], path: Path, number: int) -> Prompt | None:
    """The `prompt` or `messages` of a line, None where it has neither."""
    if "prompt" in fields and "messages" in fields:
        raise line_error(path, number, "has both prompt and messages: it must have one of them")
    if "messages" in fields:
        return _messages(fields["messages"], path, number)
    prompt = fields.get("prompt")
    if "prompt" in fields and not (isinstance(prompt, str) and prompt):
        raise line_error(path, number, f"prompt must be a text, and is {prompt!r}")
    return prompt


def whole_number(fields: Mapping[str, Any], name: str, path: Path, number: int, *, least: int) -> int:
    """A field that must be a whole number of at least `least`."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise line_error(path, number, f"{name} must be a whole number of at least {least}, and is {json.dumps(value)}")
    return value


def refuse_unknown(fields: Mapping[str, Any], known: tuple[str, ...], path: Path, number: int) -> None:
    """What is accepted is honoured; so what is not known is refused."""
    for name in fields:
        if name not in known:
            raise line_error(path, number, f"has an unknown field {name!r}: known are {', '.join(known)}")


def _prompt_of(fields: Mapping[str, Any], path: Path, number: int) -> FilePrompt:
    refuse_unknown(fields, _FIELDS, path, number)
    prompt = prompt_field(fields, path, number)
    if prompt is None:
        raise line_error(path, number, "must have a prompt or messages")
    max_tokens = whole_number(fields, "max_tokens", path, number, least=1) if "max_tokens" in fields else None
    return FilePrompt(prompt, max_tokens)


def _messages(value: object, path: Path, number: int) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise line_error(path, number, "messages must be a list of at least one message")
    for message in value:
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or not all(isinstance(part, str) for part in message.values())
        ):
            raise line_error(
                path, number, f"each of messages must have role and content, both texts, and one is {json.dumps(message)[:80]}"
            )
    return tuple(dict(message) for message in value)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"role", "content"} and all(isinstance(part, str) for part in value.values())
