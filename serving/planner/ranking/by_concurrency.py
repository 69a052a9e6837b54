"""What one way to serve does with 1, 2, 4, ... requests at once: as rows for the terminal and the page, and as data."""

from collections.abc import Sequence
from typing import Any

from serving.planner.ranking.cells import ends
from serving.planner.ranking.operation import Operation, Target

_FIGURES = (
    "ttft_s",
    "ttft_at_once_s",
    "tpot_s",
    "output_tokens_per_s",
    "output_tokens_per_s_per_request",
    "usd_per_million_output_tokens",
)


def operation_table(operations: Sequence[Operation], target: Target) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows, each estimate with its ends. Without the column of costs where there is no price, and without that of the target where
    it has no limits."""
    columns = {
        "at once": [str(one.concurrency) for one in operations],
        "TTFT": [ends(one.speed.ttft_s, " s") for one in operations],
        "TPOT": [ends(one.speed.tpot_s.times(1000), " ms") for one in operations],
        "output tokens/s": [ends(one.output_tokens_per_s) for one in operations],
        "of each request": [ends(one.output_tokens_per_s_per_request) for one in operations],
        "USD/M output": [ends(one.usd_per_million_output_tokens) for one in operations],
        "keeps the target": [_verdict(one) for one in operations] if target.has_limits else [],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return tuple(shown), list(zip(*shown.values(), strict=True))


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


def _verdict(operation: Operation) -> str:
    return f"no: {'; '.join(operation.reasons)}" if operation.reasons else "yes"
