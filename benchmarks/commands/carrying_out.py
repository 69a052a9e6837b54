"""Carries out loads on an opened target: warm-up, then repeats, each with prompts of its own, watched and shown as it goes."""

import dataclasses
import functools
import math
import threading
from collections.abc import Sequence

import numpy as np

from benchmarks.client.division import choose_num_processes
from benchmarks.client.processes import Measured, run_plan
from benchmarks.commands.opened import Opened
from benchmarks.load.build import LoadOptions, build_plan, describe, warm_up_plan
from benchmarks.load.plan import Plan
from benchmarks.load.shape import planned_requests
from benchmarks.machine.facts import num_allowed_cpus
from benchmarks.measuring.metrics import rates
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.window import whole_run
from benchmarks.report.progress import RunProgress
from benchmarks.report.words import load_name
from benchmarks.session import Point, measure


class Session:
    """Measures on one target. `stop` set: nothing more is begun, and what runs is cut off."""

    def __init__(self, target: Opened, slo: Slo | None, stop: threading.Event, num_processes: int | None, num_repeats: int) -> None:
        self._target = target
        self._slo = slo
        self._stop = stop
        self._num_processes = num_processes
        self._num_repeats = num_repeats
        self._num_measured = 0
        self._warm_rate: float | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the end was asked for."""
        return self._stop.is_set()

    def warm_up(self, load: LoadOptions, num_requests: int | None) -> None:
        """Send requests that are not measured; none for 0."""
        if num_requests == 0:
            return
        measured = self._drive(warm_up_plan(load, self._target.tokenizer, num_requests=num_requests), title="warm-up")
        self._warm_rate = rates(measured.records, whole_run(measured.records))["requests_per_s"]

    def repeated(self, load: LoadOptions) -> Sequence[Point]:
        """The repeats of one load. Once the end was asked for there are no more of them, but the very first is always carried out."""
        points: list[Point] = []
        for repeat in range(self._num_repeats):
            if self.is_stopped and self._num_measured:
                break
            # Another generator each time: a repeat must not find its prompts in the server's prefix cache.
            plan = build_plan(self._long_enough(load), self._target.tokenizer, np.random.default_rng([load.seed, self._num_measured + 2]))
            self._num_measured += 1
            told = describe(load, plan, self._target.tokenizer)
            label = load_name(told) + (f", repeat {repeat + 1}" if self._num_repeats > 1 else "")
            drive = functools.partial(self._drive, title=label)
            points.append(measure(plan, drive, self._target.watch(), label=label, load=told, repeat=repeat, slo=self._slo))
        return points

    def _long_enough(self, load: LoadOptions) -> LoadOptions:
        """A closed loop that the clock ends must not run out of requests before: twice as many as the warm-up's rate would take."""
        if load.kind != "closed" or load.duration_s is None or load.num_requests is not None or not self._warm_rate:
            return load
        num_requests = math.ceil(2 * self._warm_rate * load.duration_s) + 2 * (load.concurrency or 1)
        return dataclasses.replace(load, num_requests=max(num_requests, planned_requests(load) or 0))

    def _drive(self, plan: Plan, *, title: str) -> Measured:
        times = [request.at_s for request in plan.requests if request.at_s is not None]
        rate = len(times) / times[-1] if times and times[-1] > 0 else None
        num_processes = self._num_processes or choose_num_processes(plan.concurrency, rate, num_allowed_cpus())
        with RunProgress(title, len(plan.requests), plan.duration_s) as progress:
            return run_plan(
                plan,
                self._target.spec,
                num_processes,
                on_progress=progress.update,
                stop=self._stop,
                capabilities=self._target.capabilities,
            )
