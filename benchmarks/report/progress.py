"""Progress of a run on the terminal: sent, done, failed, tokens a second so far, the time left. Silent where stderr is no terminal."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class RunProgress:
    """A context in which `update` shows how far the run is: by the `total` of requests, by `duration_s`, or by what comes first."""

    def __init__(
        self,
        title: str,
        total: int | None,
        duration_s: float | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or Console(stderr=True)
        self._clock = clock
        self._started_at = clock()
        self._duration_s = duration_s
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = total
        self._task = self._progress.add_task(title, total=1.0 if total or duration_s else None, state="")

    def __enter__(self) -> Self:
        self._started_at = self._clock()
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, *, sent: int, done: int, failed: int, output_tokens: int) -> None:
        """The counts so far; `done` counts whole answers, `failed` the others that are over."""
        passed_s = max(self._clock() - self._started_at, 1e-9)
        state = f"{sent} sent, {done} done, {failed} failed, {output_tokens / passed_s:,.0f} tokens/s"
        by_count = (done + failed) / self._total if self._total else 0.0
        by_time = passed_s / self._duration_s if self._duration_s else 0.0
        # Whichever ends the run first.
        self._progress.update(self._task, completed=min(1.0, max(by_count, by_time)), state=state)
