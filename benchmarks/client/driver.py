"""Sends a plan's requests at their times and keeps a record of every one.

Open loop: each at its time, however slow the answers before it are. Closed: the next as soon as a place is free. Conversations: turn after
turn, with the real answers between them. Knows nothing of HTTP; the clock is CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from benchmarks.client.answer import fail
from benchmarks.client.progress import Progress
from benchmarks.load.plan import Plan, Prompt, Request
from benchmarks.measuring.record import Record

# Thousands of places are opened a few at a time, so that first answers are not kept waiting while the others connect.
_PLACES_A_TURN = 16

Unit = Sequence[Request]
"""A request that stands alone, or the turns of a conversation."""


class Target(Protocol):
    """Where requests go."""

    def begin(self, origin_s: float) -> None:
        """The times in records count from here: called once, before anything is sent."""
        ...

    async def send(self, request: Request, prompt: Prompt, record: Record, *, wants_text: bool) -> str:
        """Send `request` with `prompt` and note in `record` all that comes, failures too: none is raised, except that it was cancelled.
        Returns the answer's text where it is wanted."""
        ...

    def with_history(self, history: Prompt | None, answer: str, prompt: Prompt) -> Prompt:
        """`prompt` with what was sent and answered before put in front."""
        ...


async def drive(
    plan: Plan, target: Target, origin_s: float, progress: Progress | None = None, stop: asyncio.Event | None = None
) -> list[Record]:
    """Carry out the plan; the run's time 0 is `origin_s` on the monotonic clock. One record for every request, in the plan's order.

    When `stop` is set, what runs is cut off, and everything measured until then is returned."""
    target.begin(origin_s)
    run = _Run(plan, target, origin_s, progress or Progress())
    sending = asyncio.create_task(run.send_all())
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait((sending, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, stopping):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    if not sending.cancelled():
        sending.result()
    return run.all_records(is_stopped=sending.cancelled())


def units_of(requests: Sequence[Request]) -> list[Unit]:
    """Conversations put together, each at the place of its first turn."""
    units: dict[tuple[str, int], list[Request]] = {}
    for request in requests:
        alone = request.conversation is None
        key = ("alone", request.number) if request.conversation is None or alone else ("conversation", request.conversation)
        units.setdefault(key, []).append(request)
    return list(units.values())


class _Run:
    def __init__(self, plan: Plan, target: Target, origin_s: float, progress: Progress) -> None:
        self._plan = plan
        self._target = target
        self._origin_s = origin_s
        self._progress = progress
        self._records: dict[int, Record] = {}

    def now_s(self) -> float:
        return time.monotonic() - self._origin_s

    async def send_all(self) -> None:
        units = units_of(self._plan.requests)
        timed = sorted((unit for unit in units if unit[0].at_s is not None), key=lambda unit: unit[0].at_s or 0.0)
        untimed = deque(unit for unit in units if unit[0].at_s is None)
        num_places = len(untimed) if self._plan.concurrency is None else min(self._plan.concurrency, len(untimed))
        await self._wait_until(0.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_in_time(timed, tasks))
            for number in range(1, num_places + 1):
                tasks.create_task(self._fill_place(untimed))
                if number % _PLACES_A_TURN == 0:
                    await asyncio.sleep(0)

    def all_records(self, *, is_stopped: bool) -> list[Record]:
        """The records, with one for each request that was never sent."""
        over_s = self.now_s()
        if self._plan.duration_s is not None and not is_stopped:
            over_s = self._plan.duration_s
        for request in self._plan.requests:
            if request.number not in self._records:
                self._never_sent(request, over_s if request.at_s is None else request.at_s, "the run was over before its turn")
        return [self._records[request.number] for request in self._plan.requests]

    async def _fill_place(self, units: deque[Unit]) -> None:
        free_s = self.now_s()
        while units and not self._is_over():
            await self._send_unit(units.popleft(), free_s, None)
            free_s = self.now_s()

    async def _send_in_time(self, units: Sequence[Unit], tasks: asyncio.TaskGroup) -> None:
        # Places are for requests, not for conversations: while a user thinks, another's request may be sent.
        places = None if self._plan.concurrency is None else asyncio.Semaphore(self._plan.concurrency)
        for unit in units:
            due_s = unit[0].at_s or 0.0
            if not await self._wait_until(due_s):
                return
            tasks.create_task(self._send_unit(unit, due_s, places))

    async def _send_unit(self, unit: Unit, due_s: float, places: asyncio.Semaphore | None) -> None:
        history: Prompt | None = None
        answer = ""
        for turn, request in enumerate(unit):
            if turn > 0:
                due_s = max(self.now_s() + request.think_s, request.at_s or 0.0)
                if not await self._wait_until(due_s):
                    return
            async with places or contextlib.nullcontext():
                # One that was due in time and had not to wait is sent, though its turn in this loop may come a moment later.
                if places is not None and self._is_over():
                    return
                history = self._target.with_history(history, answer, request.prompt)
                answer = await self._send(request, history, due_s, wants_text=turn + 1 < len(unit))
            if not self._records[request.number].is_whole:
                for later in unit[turn + 1 :]:
                    self._never_sent(later, self.now_s(), f"request {request.number}, the turn before it, failed")
                return

    async def _send(self, request: Request, prompt: Prompt, due_s: float, *, wants_text: bool) -> str:
        record = self._record(request, due_s)
        self._progress.begin(record)
        timeout_s = self._plan.request_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._target.send(request, prompt, record, wants_text=wants_text)
        except TimeoutError:
            fail(record, "timeout", f"the answer had not ended after {timeout_s:g} s", self.now_s())
        except asyncio.CancelledError:
            fail(record, "broken", "cut off: the run was stopped", self.now_s())
            raise
        finally:
            self._progress.end(record)
        return ""

    def _never_sent(self, request: Request, scheduled_s: float, reason: str) -> None:
        record = self._record(request, scheduled_s)
        record.error_kind, record.error = "not_sent", reason

    def _record(self, request: Request, scheduled_s: float) -> Record:
        record = Record(
            number=request.number,
            scheduled_s=scheduled_s,
            max_tokens=request.max_tokens,
            stage=request.stage,
            conversation=request.conversation,
        )
        self._records[request.number] = record
        return record

    def _is_over(self) -> bool:
        return self._plan.duration_s is not None and self.now_s() >= self._plan.duration_s

    async def _wait_until(self, due_s: float) -> bool:
        """Wait for a time of the run. False at once where nothing is sent any more by then."""
        if self._plan.duration_s is not None and due_s >= self._plan.duration_s:
            return False
        # uvloop's timers are of whole milliseconds and may be early.
        while (left_s := due_s - self.now_s()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)
        return True
