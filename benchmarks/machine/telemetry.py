"""Watches server and GPUs while load is driven: a thread that asks `/metrics` and NVML at regular times and keeps rows on the run's clock.

A row that the server did not answer for keeps its time, with nothing in it and a count of such rows. Nothing is averaged here.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import httpx

from benchmarks.machine.nvml import Gpus, open_gpus

INTERVAL_S = 0.5
_ASK_DEADLINE_S = 2.0
_JOIN_DEADLINE_S = 10.0
_COLUMNS: Mapping[str, str] = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
    "vllm:num_preemptions_total": "preemptions",
}
"""vLLM's metrics, https://docs.vllm.ai/en/latest/usage/metrics/. With several engines usage is their mean, the others are sums."""

GetText = Callable[[], str]


def parse_metrics(text: str) -> dict[str, float]:
    """The columns that Prometheus's text format has of those above; labels are summed over, or for a share the mean taken."""
    values: dict[str, list[float]] = {}
    for line in text.splitlines():
        # "name{label="value",...} 3.0 [timestamp]": a label's value may hold spaces and braces, its end is the last brace.
        name, has_labels, rest = line.partition("{")
        if not has_labels:
            name, _, rest = line.partition(" ")
        if (column := _COLUMNS.get(name)) is None:
            continue
        number = rest.rpartition("}")[2].split()
        if number:
            values.setdefault(column, []).append(float(number[0]))
    return {column: sum(found) / (len(found) if column == "kv_cache_usage" else 1) for column, found in values.items()}


class Telemetry:
    """Rows from entering the block until leaving it. `origin` is the run's zero on the monotonic clock; it may be set later, when the run
    starts, as long as `rows` are asked for afterwards."""

    def __init__(
        self,
        url: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        interval_s: float = INTERVAL_S,
        gpus: Gpus | None = None,
        get_text: GetText | None = None,
    ) -> None:
        self.origin = time.monotonic()
        self.reasons: list[str] = []
        """What could not be watched, and why."""
        self.num_unanswered = 0
        self._interval_s = interval_s
        self._rows: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)
        self._client = None if url is None or get_text is not None else httpx.Client(headers=dict(headers or {}), timeout=_ASK_DEADLINE_S)
        self._url = url
        self._get_text = get_text if get_text is not None else (None if url is None else self._ask)
        self._own_gpus = gpus
        self._gpus = gpus
        if gpus is None:
            self._gpus, reason = open_gpus()
            if reason is not None:
                self.reasons.append(f"GPUs are not watched: {reason}")

    def rows(self) -> list[dict[str, Any]]:
        """The document's "timeline": `at_s` since the origin, the columns, and `gpus` where there are some."""
        return [{**row, "at_s": round(row["at_s"] - self.origin, 3)} for row in list(self._rows)]

    def _watch(self) -> None:
        due = time.monotonic()
        while True:
            self._rows.append(self._sample())
            due = max(due + self._interval_s, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                # What was asked about reaches to the end of the run.
                self._rows.append(self._sample())
                return

    def _sample(self) -> dict[str, Any]:
        asked = time.monotonic()
        columns: dict[str, Any] = dict.fromkeys(_COLUMNS.values())
        if self._get_text is not None:
            try:
                columns |= parse_metrics(self._get_text())
            except (httpx.HTTPError, OSError, ValueError):
                self.num_unanswered += 1
        row = {"at_s": (asked + time.monotonic()) / 2, **columns}
        if self._gpus is not None:
            row["gpus"] = [asdict(reading) for reading in self._gpus.read()]
        return row

    def _ask(self) -> str:
        if self._client is None:
            raise OSError("closed")
        answer = self._client.get(f"{self._url}/metrics")
        answer.raise_for_status()
        return answer.text

    def __enter__(self) -> Self:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take one last row and stop; at the latest when a question's deadline is over."""
        self._stop.set()
        self._thread.join(_JOIN_DEADLINE_S)
        if self._client is not None:
            self._client.close()
        if self._gpus is not None and self._own_gpus is None:
            self._gpus.__exit__(None, None, None)


def peaks(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """The largest value of each column; None for one that was never told."""
    kept = list(rows)
    return {
        column: max((row[column] for row in kept if row.get(column) is not None), default=None) for column in sorted(set(_COLUMNS.values()))
    }
