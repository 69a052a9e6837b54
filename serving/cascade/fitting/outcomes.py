"""Outcome files: how good and how dear each tier's answer to each of many requests was. JSON lines, read strictly.

A line is {"id", "messages", "outcomes": {TIER: {"quality": 0..1, "cost": number, "signals": {name: number}}}}. Every line has the same
tiers, and each tier the same signals on every line; a tier may have none.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from serving.cascade.request_features import request_features
from serving.errors import CascadeError

Floats = NDArray[np.float64]
ROUNDING = 1e-12
"""Means of the same qualities in another order differ by less."""
_LINE = ("id", "messages", "outcomes")
_OUTCOME = ("quality", "cost", "signals")
_LARGEST = 1e100
"""Of costs and signals: their squares, and sums of these over any file, are numbers still."""


@dataclass(frozen=True)
class Outcomes:
    """`tiers` from small to large; `quality` and `cost` are (requests, tiers); `signals[tier][name]` is (requests,). `sha256` is the
    file's, also of a part of its requests. `assumed_order`: the tiers were ordered by their mean cost, nobody having said how."""

    messages: tuple[Sequence[Mapping[str, Any]], ...]
    tiers: tuple[str, ...]
    quality: Floats
    cost: Floats
    signals: Mapping[str, Mapping[str, Floats]]
    sha256: str
    assumed_order: bool

    def __len__(self) -> int:
        return len(self.messages)

    @cached_property
    def features(self) -> Sequence[Mapping[str, float]]:
        """By request, what the rules may know of it before anything is generated."""
        return [request_features(messages) for messages in self.messages]

    def take(self, rows: NDArray[np.intp]) -> "Outcomes":
        """The requests of these rows, in their order."""
        signals = {tier: {name: values[rows] for name, values in named.items()} for tier, named in self.signals.items()}
        messages = tuple(self.messages[row] for row in rows)
        return Outcomes(messages, self.tiers, self.quality[rows], self.cost[rows], signals, self.sha256, self.assumed_order)


def read_outcomes(path: Path, tiers: Sequence[str] | None = None) -> Outcomes:
    """Read a whole file. `tiers` orders them from small to large; otherwise their mean cost does, and where that is equal the first line.

    Raises:
        CascadeError: the file or a line is not as it should be; names line, field and value.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CascadeError(f"cannot read {path}: {error.strerror}") from error
    lines: list[dict[str, Any]] = []
    first_seen: dict[str, int] = {}
    for number, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            where = f"{path} line {number}"
            line = _line(where, text, lines[0] if lines else None)
            if line["id"] in first_seen:
                raise CascadeError(f"{where}: id {line['id']!r} is that of line {first_seen[line['id']]}")
            first_seen[line["id"]] = number
            lines.append(line)
    if not lines:
        raise CascadeError(f"{path} is empty; expected a JSON object a line with {', '.join(_LINE)}")
    return _table(lines, _ordered(path, lines, tiers), hashlib.sha256(content).hexdigest(), assumed_order=tiers is None)


def _ordered(path: Path, lines: Sequence[dict[str, Any]], tiers: Sequence[str] | None) -> tuple[str, ...]:
    found = list(lines[0]["outcomes"])
    if tiers is None:
        return tuple(sorted(found, key=lambda tier: math.fsum(line["outcomes"][tier]["cost"] for line in lines)))
    if sorted(tiers) != sorted(found):
        raise CascadeError(f"--tiers {','.join(tiers)}: {path} has the tiers {', '.join(found)}; name each once, from small to large")
    return tuple(tiers)


def _table(lines: Sequence[dict[str, Any]], tiers: tuple[str, ...], sha256: str, *, assumed_order: bool) -> Outcomes:
    def column(tier: str, field: str) -> list[float]:
        return [line["outcomes"][tier][field] for line in lines]

    signals = {}
    for tier in tiers:
        rows = [line["outcomes"][tier].get("signals", {}) for line in lines]
        signals[tier] = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    return Outcomes(
        messages=tuple(line["messages"] for line in lines),
        tiers=tiers,
        quality=np.array([column(tier, "quality") for tier in tiers], dtype=float).T,
        cost=np.array([column(tier, "cost") for tier in tiers], dtype=float).T,
        signals=signals,
        sha256=sha256,
        assumed_order=assumed_order,
    )


def _line(where: str, text: bytes, first: dict[str, Any] | None) -> dict[str, Any]:
    """One line, checked; `first` is the file's first, which says what tiers and signals there are."""
    try:
        line = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # of the JSON, of the UTF-8, and of brackets without end
        raise CascadeError(f"{where} is not JSON: {error}") from error
    _check_fields(where, line, _LINE, required=_LINE)
    if not isinstance(line["id"], str | int) or isinstance(line["id"], bool) or line["id"] == "":
        _refuse(where, "id", line["id"], "a text or an integer")
    line["id"] = str(line["id"])
    _check_messages(where, line["messages"])
    outcomes = line["outcomes"]
    if not isinstance(outcomes, dict) or len(outcomes) < 2:
        _refuse(where, "outcomes", outcomes, "an object of two tiers or more")
    if first is not None:
        _check_same(f"{where}: outcomes", "tier", outcomes, first["outcomes"])
    for tier, outcome in outcomes.items():
        _check_outcome(where, tier, outcome, first["outcomes"][tier] if first else None)
    return line


def _check_outcome(where: str, tier: str, outcome: Any, first: Mapping[str, Any] | None) -> None:
    name = f"outcomes.{tier}"
    _check_fields(f"{where}: {name}", outcome, _OUTCOME, required=("quality", "cost"))
    if not _is_number(outcome["quality"]) or not 0 <= outcome["quality"] <= 1:
        _refuse(where, f"{name}.quality", outcome["quality"], "a number from 0 to 1")
    if not _is_number(outcome["cost"]) or outcome["cost"] < 0:
        _refuse(where, f"{name}.cost", outcome["cost"], f"a number from 0 to {_LARGEST:g}")
    signals = outcome.get("signals", {})
    if not isinstance(signals, dict):
        _refuse(where, f"{name}.signals", signals, "an object of names and numbers")
    if first is not None:
        _check_same(f"{where}: {name}.signals", "signal", signals, first.get("signals", {}))
    for signal, value in signals.items():
        if not _is_number(value):
            _refuse(where, f"{name}.signals.{signal}", value, f"a number from {-_LARGEST:g} to {_LARGEST:g}")


def _check_messages(where: str, messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        _refuse(where, "messages", messages, "a list of one message or more")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            _refuse(where, f"messages[{index}]", message, 'an object with "role" and "content"')
        if not isinstance(message.get("content"), str | list | None):
            _refuse(where, f"messages[{index}].content", message["content"], "a text or a list of parts")


def _check_fields(where: str, value: Any, known: Sequence[str], *, required: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise CascadeError(f"{where} is {_shown(value)}; expected an object with {', '.join(known)}")
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise CascadeError(
                f"{where}: unknown field {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}")
            )
    for name in required:
        if name not in value:
            raise CascadeError(f"{where}: {name!r} is missing")


def _check_same(where: str, kind: str, names: Iterable[str], first: Iterable[str]) -> None:
    found, expected = set(names), set(first)
    for name in sorted(expected - found):
        raise CascadeError(f"{where} has no {kind} {name!r}, which the first line has")
    for name in sorted(found - expected):
        raise CascadeError(f"{where} has the {kind} {name!r}, which the first line has not: it has {', '.join(sorted(expected)) or 'none'}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _refuse(where: str, field: str, value: Any, expected: str) -> NoReturn:
    raise CascadeError(f"{where}: {field} is {_shown(value)}; expected {expected}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
