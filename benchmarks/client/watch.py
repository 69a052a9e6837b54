"""Watches the process that drives load: how late its event loop is, and its CPU time. A time is measured no better than that."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator

from benchmarks.measuring.record import ClientLoad

LAG_INTERVAL_S = 0.01


class LoopWatch:
    """A context around the run, in the event loop that it watches."""

    def __init__(self) -> None:
        self._lags_s: list[float] = []

    async def __aenter__(self) -> "LoopWatch":
        self._started_s = time.monotonic()
        self._started_cpu_s = time.process_time()
        self._due_s = self._started_s + LAG_INTERVAL_S
        self._task = asyncio.create_task(self._wake_regularly())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._note_lateness()
        self._wall_s = time.monotonic() - self._started_s
        self._cpu_s = time.process_time() - self._started_cpu_s
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def load(self, process: int, num_requests: int) -> ClientLoad:
        """What was seen between entering and leaving."""
        return ClientLoad(
            process=process,
            wall_s=self._wall_s,
            cpu_share=self._cpu_s / self._wall_s if self._wall_s > 0 else 0.0,
            lag_interval_s=LAG_INTERVAL_S,
            loop_lag_s=tuple(self._lags_s),
            num_requests=num_requests,
        )

    async def _wake_regularly(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._due_s - time.monotonic()))
            self._note_lateness()

    def _note_lateness(self) -> None:
        """Every wake-up that was due is counted, with its own lateness: one long stall is many late wake-ups, not one."""
        now_s = time.monotonic()
        while self._due_s <= now_s:
            self._lags_s.append(now_s - self._due_s)
            self._due_s += LAG_INTERVAL_S


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """The collector walks everything that was recorded so far, a pause that grows with the run and would be measured as the server's.

    What is there when the run begins is frozen; cycles made meanwhile are few, and are collected afterwards."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
