"""Questions with one right answer each: JSON lines of `id`, `messages` and `answer`, read strictly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import TokenportError

_FIELDS = {"id": str, "messages": list, "answer": str}


@dataclass(frozen=True)
class Question:
    """`answer` is the one right text, spaces around it aside."""

    identifier: str
    messages: Sequence[Mapping[str, Any]]
    answer: str

    def quality(self, given: str | None) -> float:
        """1 for the right answer, else 0."""
        return float(given is not None and given.strip() == self.answer.strip())


def read_questions(path: Path) -> list[Question]:
    """Read a whole file.

    Raises:
        TokenportError: the file cannot be read, is empty, or a line is none of these; names line, field and value.
    """
    try:
        # Not splitlines(): a text may have U+2028 or U+0085 in it, which end no line of JSON.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenportError(f"{path} cannot be read: {error}") from error
    found: dict[str, Question] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            question = _question(f"{path} line {number}", line)
            if question.identifier in found:
                raise TokenportError(f"{path} line {number}: id {question.identifier!r} is that of an earlier line")
            found[question.identifier] = question
    if not found:
        raise TokenportError(f"{path} has no questions; expected a JSON object a line with {', '.join(_FIELDS)}")
    return list(found.values())


def _question(where: str, line: str) -> Question:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TokenportError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.keys() != _FIELDS.keys():
        raise TokenportError(f"{where}: expected an object with exactly {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise TokenportError(f"{where}: {name} is {json.dumps(fields[name])[:80]}; expected a {'list' if kind is list else 'text'}")
    for name in ("id", "messages"):
        if not fields[name]:
            raise TokenportError(f"{where}: {name} is empty")
    return Question(fields["id"], fields["messages"], fields["answer"])
