"""An hourly load: how many requests come in each hour, and how long they are.

A CSV has a row an hour, without gaps, and these columns: `hour` (0, 1, 2, ...) or `timestamp` (ISO 8601, on the hour); `requests`; and
either `input_tokens` and `output_tokens`, the sums of the hour, or `input_tokens_per_request` and `output_tokens_per_request`, its means.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from serving.errors import PlanError
from serving.planner.cost.quantities import unknown

_SUMS = ("input_tokens", "output_tokens")
_MEANS = ("input_tokens_per_request", "output_tokens_per_request")
_COLUMNS = ("hour", "timestamp", "requests", *_SUMS, *_MEANS)


@dataclass(frozen=True)
class Hour:
    """Requests that come in one hour; tokens are the mean of one request."""

    num_requests: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True)
class Load:
    """Hours one after the other; `source` says where they are from."""

    hours: tuple[Hour, ...]
    source: str

    @property
    def num_requests(self) -> float:
        """Of all hours."""
        return sum(hour.num_requests for hour in self.hours)

    @property
    def input_tokens(self) -> float:
        """Of all requests together."""
        return sum(hour.num_requests * hour.input_tokens for hour in self.hours)

    @property
    def output_tokens(self) -> float:
        """Of all requests together."""
        return sum(hour.num_requests * hour.output_tokens for hour in self.hours)

    @property
    def requests_per_day(self) -> float:
        """On average."""
        return self.num_requests / len(self.hours) * 24

    def busiest_hours(self) -> tuple["Load", ...]:
        """Those with the most requests, input tokens and output tokens; one, where these are the same."""
        amounts: tuple[Callable[[Hour], float], ...] = (
            lambda hour: hour.num_requests,
            lambda hour: hour.num_requests * hour.input_tokens,
            lambda hour: hour.num_requests * hour.output_tokens,
        )
        busiest = dict.fromkeys(max(self.hours, key=amount) for amount in amounts)
        return tuple(Load((hour,), f"{self.source}, a busiest hour") for hour in busiest)

    def scaled(self, factor: float) -> "Load":
        """So many times the requests in every hour, each as long as before."""
        hours = tuple(Hour(hour.num_requests * factor, hour.input_tokens, hour.output_tokens) for hour in self.hours)
        return Load(hours, f"{self.source}, {factor:g} times the requests")


def read_load(path: Path) -> Load:
    """The load of a CSV.

    Raises:
        PlanError: the file cannot be read, or a column or value is wrong: names the line, the column and the value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PlanError(f"--load {path} cannot be read as CSV: {error}") from error
    if not rows:
        raise PlanError(f"--load {path} is empty: write a header with {', '.join(('hour', 'requests', *_SUMS))} and a line an hour")
    header = [cell.strip() for cell in rows[0]]
    time_column, tokens = _check_header(path, header)
    lines = [(number, row) for number, row in enumerate(rows[1:], start=2) if row]
    hours = []
    for index, (line, row) in enumerate(lines):
        if len(row) != len(header):
            raise PlanError(f"--load {path} line {line}: has {len(row)} cells, the header has {len(header)}")
        cells = _Cells(path, line, dict(zip(header, row, strict=True)))
        _check_time(cells, time_column, index, lines[0][1][header.index(time_column)].strip())
        hours.append(_hour(cells, tokens))
    if not any(hour.num_requests for hour in hours):
        raise PlanError(f"--load {path}: column requests: no hour has any")
    return Load(tuple(hours), f"{path.name}, {len(hours)} hours")


@dataclass(frozen=True)
class _Cells:
    """One line, with what its errors need."""

    path: Path
    line: int
    texts: dict[str, str]

    def wrong(self, column: str, right: str) -> PlanError:
        return PlanError(f"--load {self.path} line {self.line}, column {column}: {self.texts[column]!r}: {right}")

    def number(self, column: str) -> float:
        try:
            value = float(self.texts[column])
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.wrong(column, "write a number that is not negative")
        return value


def _check_header(path: Path, header: Sequence[str]) -> tuple[str, tuple[str, str]]:
    """The column that counts the hours, and the two of tokens."""
    for name in header:
        if name not in _COLUMNS:
            raise unknown(f"--load {path} line 1, column", name, _COLUMNS)
        if header.count(name) > 1:
            raise PlanError(f"--load {path} line 1, column {name}: is there twice")
    times = [name for name in ("hour", "timestamp") if name in header]
    tokens = [pair for pair in (_SUMS, _MEANS) if pair[0] in header or pair[1] in header]
    if len(times) != 1:
        raise PlanError(f"--load {path} line 1: has {' and '.join(times) or 'no time'}; write one column, hour or timestamp")
    if len(tokens) != 1:
        raise PlanError(f"--load {path} line 1: write {' and '.join(_SUMS)}, sums of the hour, or {' and '.join(_MEANS)}")
    for name in ("requests", *tokens[0]):
        if name not in header:
            raise PlanError(f"--load {path} line 1, column {name}: is missing")
    return times[0], tokens[0]


def _check_time(cells: _Cells, column: str, index: int, first: str) -> None:
    """Hours follow each other: a gap could mean no requests or no measurement."""
    text = cells.texts[column].strip()
    if column == "hour":
        if text != str(index):
            raise cells.wrong(column, f"expected {index}; hours count from 0 without gaps, one without requests has 0")
        return
    try:
        time, start = datetime.fromisoformat(text), datetime.fromisoformat(first)
        expected = start + timedelta(hours=index)
        is_next = time == expected and (time.minute, time.second, time.microsecond) == (0, 0, 0)
    except (ValueError, TypeError, OverflowError) as error:
        raise cells.wrong(column, "write ISO 8601 like 2026-01-05T09:00, all with or all without a time zone") from error
    if not is_next:
        raise cells.wrong(column, f"expected {expected.isoformat()}, on the hour and without gaps; an hour without requests has 0")


def _hour(cells: _Cells, tokens: tuple[str, str]) -> Hour:
    num_requests = cells.number("requests")
    if num_requests != int(num_requests):
        raise cells.wrong("requests", "write a whole number")
    values = [cells.number(column) for column in tokens]
    for column, value in zip(tokens, values, strict=True):
        if num_requests and not value:
            raise cells.wrong(column, "the hour has requests; give their tokens")
        if value and not num_requests and tokens == _SUMS:
            raise cells.wrong(column, "the hour has no requests")
    share = 1 / num_requests if num_requests and tokens == _SUMS else 1.0
    return Hour(num_requests, values[0] * share, values[1] * share)
