"""From a result document back to its requests: latencies one by one, and what happened second by second. For plots and comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring.record import Record, from_json
from benchmarks.measuring.timing import e2e_s, itl_s, tpot_s, ttft_s
from benchmarks.measuring.window import Window


def records_of(document: Mapping[str, Any], run: Mapping[str, Any]) -> list[Record]:
    """The requests of one run, in the order in which they were due. Fields that this version does not know are left aside."""
    known = Record.__dataclass_fields__
    found = [
        from_json({name: value for name, value in fields.items() if name in known} | {"max_tokens": fields.get("max_tokens", 0)})
        for fields in document["requests"]
        if fields["run"] == run["index"]
    ]
    return sorted(found, key=lambda record: record.scheduled_s)


def window_of(run: Mapping[str, Any], records: Sequence[Record]) -> Window:
    """The window that the run's figures are of."""
    told = run.get("window")
    if told and told["start_s"] is not None and told["end_s"] is not None:
        return Window(told["start_s"], told["end_s"], told["how"], is_steady=True)
    ends = [record.ended_s for record in records if record.ended_s is not None]
    return Window(min((record.scheduled_s for record in records), default=0.0), max(ends, default=0.0), "the whole run", is_steady=False)


def due_in(records: Sequence[Record], window: Window) -> list[Record]:
    """Those whose latencies count."""
    return [record for record in records if window.holds(record.scheduled_s)]


def latencies_of(record: Record, name: str, *, from_send: bool = False) -> list[float]:
    """The samples that one request gives to a latency: none, one, or for ITL many."""
    if name == "itl_s":
        return itl_s(record)
    value = {
        "ttft_s": lambda: ttft_s(record, from_send=from_send),
        "tpot_s": lambda: tpot_s(record),
        "e2e_s": lambda: e2e_s(record, from_send=from_send),
    }[name]()
    return [] if value is None else [value]


def token_times(record: Record) -> tuple[list[float], list[float]]:
    """When output came and how many tokens each time. Where only their sum is known, each piece has an equal share."""
    if record.arrival_tokens is not None:
        return record.arrivals_s, [float(count) for count in record.arrival_tokens]
    share = record.num_tokens / len(record.arrivals_s) if record.arrivals_s else 0.0
    return record.arrivals_s, [share] * len(record.arrivals_s)
