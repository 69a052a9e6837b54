"""Several repeats of one load as one result: rates averaged, latencies of all requests together, intervals over the repeats."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring.metrics import LATENCIES, latencies
from benchmarks.measuring.record import Record
from benchmarks.measuring.statistics import t_interval
from benchmarks.measuring.window import Window

RATES = ("output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s", "mean_concurrency")
_SUMS = ("duration_s", "window_s", "num_requests", "num_completed", "num_failed")


def pool(
    repeats: Sequence[Mapping[str, Any]], records: Sequence[Sequence[Record]], windows: Sequence[Window], *, from_send: bool = False
) -> dict[str, Any]:
    """The metrics of all repeats; one repeat is its own. `ci` under the top holds the rates' 95 % intervals by Student's t over repeats."""
    if len(repeats) == 1:
        return {**repeats[0], "ci": {name: None for name in RATES}}
    due = [record for of_run, window in zip(records, windows, strict=True) for record in of_run if window.holds(record.scheduled_s)]
    pooled = latencies(due, from_send=from_send)
    for name in LATENCIES:
        for figure in ("mean", "p50", "p90", "p99"):
            values = [repeat[name][figure] for repeat in repeats]
            # Where every repeat carries the figure, their scatter tells more than one run's samples can: a run's level is shared by them.
            if None not in values:
                pooled[name]["ci"][figure] = t_interval(values)
    values_of = {name: [repeat[name] for repeat in repeats if repeat[name] is not None] for name in RATES}
    return {
        **{name: sum(repeat[name] for repeat in repeats) for name in _SUMS},
        "errors": _sum_of(repeat["errors"] for repeat in repeats),
        **{name: _mean(values) for name, values in values_of.items()},
        "ci": {name: t_interval(values) for name, values in values_of.items()},
        "whole_run": {name: _mean([repeat["whole_run"][name] for repeat in repeats]) for name in repeats[0]["whole_run"]},
        **pooled,
        "goodput": _goodput([repeat["goodput"] for repeat in repeats]),
        "tokens": _tokens([repeat["tokens"] for repeat in repeats]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _sum_of(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return total


def _goodput(repeats: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [repeat for repeat in repeats if repeat is not None]
    if not known:
        return None
    return {
        "slo": known[0]["slo"],
        **{name: _mean([one[name] for one in known]) for name in ("share", "requests_per_s", "output_tokens_per_s")},
    }


def _tokens(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ways = {repeat["counted_by"] for repeat in repeats}
    return {
        name: (ways.pop() if len(ways) == 1 else "both") if name == "counted_by" else sum(repeat[name] for repeat in repeats)
        for name in repeats[0]
    }
