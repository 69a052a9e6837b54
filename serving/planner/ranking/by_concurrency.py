"""What one way to serve does with 1, 2, 4, ... requests at once: as rows for the terminal and the page, and as data."""

from collections.abc import Sequence
from typing import Any

from serving.planner.ranking.cells import ends
from serving.planner.ranking.operation import Operation

HEAD = ("at once", "TTFT", "TPOT", "output tokens/s", "of each request", "USD/M output", "keeps the target")
_FIGURES = (
    "ttft_s",
    "ttft_at_once_s",
    "tpot_s",
    "output_tokens_per_s",
    "output_tokens_per_s_per_request",
    "usd_per_million_output_tokens",
)


def operation_rows(operations: Sequence[Operation]) -> list[tuple[str, ...]]:
    """By `HEAD`; each estimate with its ends."""
    return [
        (
            str(one.concurrency),
            ends(one.speed.ttft_s, " s"),
            ends(one.speed.tpot_s.times(1000), " ms"),
            ends(one.output_tokens_per_s),
            ends(one.output_tokens_per_s_per_request),
            ends(one.usd_per_million_output_tokens),
            f"no: {'; '.join(one.reasons)}" if one.reasons else "yes",
        )
        for one in operations
    ]


def operation_json(operation: Operation | None) -> dict[str, Any]:
    """Each figure an interval; None where there is none."""
    found = {} if operation is None else {**vars(operation.speed), **vars(operation)}
    return {name: None if found.get(name) is None else found[name].to_json() for name in _FIGURES}


def by_concurrency_json(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """For `by_concurrency` of `tokenport plan --json`."""
    return [
        {
            "concurrency": one.concurrency,
            **operation_json(one),
            "keeps_target": not one.reasons,
            "reasons": list(one.reasons),
        }
        for one in operations
    ]
