"""A plan divided among client processes, all on one clock, and what they measured put together again.

Each process gets whole conversations and its share of the places; standard streams carry JSON lines. A process that dies is told, and
what the others measured is kept. Ctrl-C cuts the run off and keeps what was measured; a second one ends it at once.
"""

import contextlib
import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, Protocol

from benchmarks.client.bodies import check_prompts
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.division import divided
from benchmarks.client.driver import units_of
from benchmarks.client.probe import probe_now
from benchmarks.client.target import TargetSpec
from benchmarks.client.worker_process import WorkerProcess, running_workers
from benchmarks.load.plan import Plan, Request
from benchmarks.measuring.record import ClientLoad, Record
from serving.errors import BenchmarkError

_READY_DEADLINE_S = 120.0
_LEAD_S = 0.1
"""Between the last process's readiness and the run's time 0, for the origin to reach them all."""
_SPARE_S = 60.0
"""Beyond the latest time at which a process must have ended by its plan."""
_STOP_DEADLINE_S = 60.0
_POLL_S = 0.2


class OnProgress(Protocol):
    """Called a few times a second with the counts so far, of all processes together."""

    def __call__(self, *, sent: int, done: int, failed: int, output_tokens: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """One record for every request of the plan, in its order, and each process's own load. `interrupted`: the run was cut off.
    `lost`: what became of processes that did not come back, a sentence each; their requests' records say `lost`, and a run with any is
    not valid. `origin_s`: the run's time 0 on the monotonic clock."""

    records: list[Record]
    client: list[ClientLoad]
    interrupted: bool
    lost: list[str] = field(default_factory=list)
    origin_s: float = 0.0


def run_plan(
    plan: Plan,
    spec: TargetSpec,
    num_processes: int = 1,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
    capabilities: Capabilities | None = None,
    on_start: Callable[[float], None] | None = None,
) -> Measured:
    """Carry out `plan` from `num_processes` other processes. `stop` cuts it off, as Ctrl-C does; `on_start` is told the run's origin.

    The target is probed first where `capabilities` are not given: probe once where one target is measured several times.

    Raises:
        BenchmarkError: the target cannot be sent these prompts, or does not take even a simple request.
        KeyboardInterrupt: a second Ctrl-C.
    """
    check_prompts(plan, spec)
    if not plan.requests:
        raise BenchmarkError("the plan has no requests")
    if capabilities is None:
        capabilities = probe_now(spec)
    parts = divided(plan, num_processes)
    with running_workers(len(parts)) as workers:
        run = _Run(plan, workers, on_progress, stop or threading.Event())
        same = {"spec": _plain(spec), "capabilities": capabilities}
        jobs = [{"plan": part, "process": number, **same} for number, part in enumerate(parts)]
        with _interrupts_setting(run.stop):
            return run.carry_out(jobs, on_start or (lambda origin_s: None))


class _Run:
    def __init__(self, plan: Plan, workers: Sequence[WorkerProcess], on_progress: OnProgress | None, stop: threading.Event) -> None:
        self._plan = plan
        self._workers = workers
        self._on_progress = on_progress
        self.stop = stop
        self._heard: queue.SimpleQueue[tuple[WorkerProcess, dict[str, Any] | None]] = queue.SimpleQueue()
        self._is_stopped = False

    def carry_out(self, jobs: Sequence[dict[str, Any]], on_start: Callable[[float], None]) -> Measured:
        for worker, job in zip(self._workers, jobs, strict=True):
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
            # A plan may be larger than the pipe: none may wait for another to read its own.
            threading.Thread(target=worker.tell, args=(job,), daemon=True).start()
        # A stop that comes before the run does cuts it off as soon as it has begun.
        self._hear_until(lambda worker: worker.is_ready, time.monotonic() + _READY_DEADLINE_S, is_running=False)
        origin_s = time.monotonic() + _LEAD_S
        on_start(origin_s)
        for worker in self._workers:
            if worker.is_ready:
                worker.tell({"origin_s": origin_s})
        self._hear_until(lambda worker: worker.has_ended, origin_s + _longest_s(self._plan), is_running=True)
        failures = [worker.failure for worker in self._workers if worker.failure is not None]
        if len(failures) == len(self._workers):
            raise BenchmarkError(failures[0])
        return self._put_together(origin_s)

    def _hear_until(self, is_enough: Callable[[WorkerProcess], bool], deadline_s: float, *, is_running: bool) -> None:
        while not all(worker.is_gone or is_enough(worker) for worker in self._workers):
            if is_running and self.stop.is_set() and not self._is_stopped:
                self._cut_off()
                deadline_s = min(deadline_s, time.monotonic() + _STOP_DEADLINE_S)
            if time.monotonic() > deadline_s:
                return
            try:
                worker, message = self._heard.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            worker.hear(message)
            if message is not None and "progress" in message:
                self._show_progress()

    def _cut_off(self) -> None:
        self._is_stopped = True
        for worker in self._workers:
            worker.tell({"stop": True})

    def _listen(self, worker: WorkerProcess) -> None:
        """Everything that one process says, in a thread of its own, to the end."""
        for message in worker.messages():
            self._heard.put((worker, message))
        self._heard.put((worker, None))

    def _show_progress(self) -> None:
        if self._on_progress is not None:
            total = {
                name: sum(worker.counts.get(name, 0) for worker in self._workers) for name in ("sent", "done", "failed", "output_tokens")
            }
            self._on_progress(**total)

    def _put_together(self, origin_s: float) -> Measured:
        lost = [worker.what_became_of_it() for worker in self._workers if not worker.has_ended]
        records = {record.number: record for worker in self._workers for record in worker.records}
        now_s = time.monotonic() - origin_s
        for request in self._plan.requests:
            if request.number not in records:
                records[request.number] = _lost(request, now_s, "; ".join(lost))
        return Measured(
            records=[records[request.number] for request in self._plan.requests],
            client=[worker.load for worker in self._workers if worker.load is not None],
            interrupted=self._is_stopped,
            lost=lost,
            origin_s=origin_s,
        )


def _lost(request: Request, now_s: float, reason: str) -> Record:
    return Record(
        number=request.number,
        scheduled_s=now_s if request.at_s is None else request.at_s,
        max_tokens=request.max_tokens,
        error=reason,
        error_kind="lost",
        stage=request.stage,
        conversation=request.conversation,
    )


def _longest_s(plan: Plan) -> float:
    """When every process must have ended, if each request takes all the time that it may."""
    num_turns = max(len(unit) for unit in units_of(plan.requests))
    if plan.duration_s is not None:
        return plan.duration_s + plan.request_timeout_s + _SPARE_S
    last_s = max(request.at_s or 0.0 for request in plan.requests)
    thinking_s = sum(request.think_s for request in plan.requests)
    num_rounds = math.ceil(len(plan.requests) / plan.concurrency) if plan.concurrency else 1
    return last_s + thinking_s + max(num_rounds, num_turns) * (plan.request_timeout_s + 1.0) + _SPARE_S


@contextlib.contextmanager
def _interrupts_setting(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stop`, the next is one as ever. Python gives signals to the main thread alone; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _plain(spec: TargetSpec) -> TargetSpec:
    return replace(spec, extra_body=dict(spec.extra_body), headers=dict(spec.headers))
