"""Instances of an endpoint, request by request: so many at once on each, the rest wait in one queue, first come first served.

A request takes as long as it was measured to take on a full instance, however full it is. An instance is paid from the decision to start it
to the decision to stop it; what it works on then is finished all the same.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.planner.cost.autoscaling import PERIOD_S, Autoscaling, Scaler
from serving.planner.cost.requests import Floats


@dataclass(frozen=True)
class FleetRun:
    """Arrays of one entry a request. `is_turned_away`: no instance was up, or it does not wait and none had room. `instance_s` paid within
    the load's time, `busy_s` of all requests together on them."""

    wait_s: Floats
    is_turned_away: NDArray[np.bool_]
    instance_s: float
    busy_s: float


def run_fleet(
    arrival_s: Floats, service_s: Floats, *, concurrency: int, scaling: Autoscaling, duration_s: float, can_wait: bool = True
) -> FleetRun:
    """From `scaling`'s fewest instances on. `concurrency` of one; `can_wait` False: what finds no room goes elsewhere."""
    fleet = _Fleet(service_s.tolist(), concurrency, scaling, duration_s)
    for index, time in enumerate(arrival_s.tolist()):
        fleet.advance(time)
        fleet.arrive(index, time, can_wait=can_wait)
    fleet.close()
    starts_s = np.array(fleet.starts_s)
    is_turned_away = np.isnan(starts_s)
    return FleetRun(starts_s - arrival_s, is_turned_away, fleet.instance_s, float(service_s[~is_turned_away].sum()))


class _Fleet:
    """What is going on. Capacity is counted over all instances together: one that becomes ready takes from the common queue."""

    def __init__(self, service_s: Sequence[float], concurrency: int, scaling: Autoscaling, duration_s: float) -> None:
        self.starts_s = [math.nan] * len(service_s)
        self.instance_s = 0.0
        self._service_s, self._concurrency, self._duration_s = service_s, concurrency, duration_s
        self._scaling, self._scaler = scaling, Scaler(scaling)
        self._num_paid = self._num_ready = scaling.min_instances
        self._paid_until_s = 0.0
        self._ends_s: list[float] = []
        self._waiting: deque[int] = deque()
        self._ready_at_s: deque[float] = deque()
        self._next_period_s = PERIOD_S if scaling.min_instances < scaling.max_instances else math.inf
        self._wake_at_s = math.inf

    def arrive(self, index: int, time_s: float, *, can_wait: bool) -> None:
        """One request comes."""
        if len(self._ends_s) < self._num_ready * self._concurrency and not self._waiting:
            self._start(index, time_s)
        elif can_wait and self._num_ready:
            self._waiting.append(index)
        elif not self._num_paid:
            self._wake_at_s = min(self._wake_at_s, time_s + self._scaling.wake_after_s)

    def advance(self, until_s: float) -> None:
        """Everything that happens up to then."""
        while (time_s := self._next_s()) <= until_s:
            self._happen(time_s)

    def close(self) -> None:
        """To the end of the load's time, and then until nobody waits or is worked on."""
        self.advance(self._duration_s)
        self._bill(self._duration_s)
        while self._waiting or self._ends_s:
            self._happen(self._next_s())

    def _next_s(self) -> float:
        end_s = self._ends_s[0] if self._ends_s else math.inf
        ready_s = self._ready_at_s[0] if self._ready_at_s else math.inf
        return min(end_s, ready_s, self._next_period_s)

    def _happen(self, time_s: float) -> None:
        if self._ends_s and self._ends_s[0] <= time_s:
            heapq.heappop(self._ends_s)
        elif self._ready_at_s and self._ready_at_s[0] <= time_s:
            self._ready_at_s.popleft()
            self._num_ready += 1
        else:
            self._next_period_s += PERIOD_S
            self._scale(time_s)
        while self._waiting and len(self._ends_s) < self._num_ready * self._concurrency:
            self._start(self._waiting.popleft(), time_s)

    def _start(self, index: int, time_s: float) -> None:
        self.starts_s[index] = time_s
        heapq.heappush(self._ends_s, time_s + self._service_s[index])

    def _scale(self, time_s: float) -> None:
        num_in_flight = len(self._ends_s) + len(self._waiting)
        desired = self._scaler.desired(num_in_flight, self._num_paid, is_starting=bool(self._ready_at_s))
        if self._wake_at_s <= time_s:
            self._wake_at_s = math.inf
            desired = max(desired, 1)
        if desired == self._num_paid:
            return
        self._bill(time_s)
        if desired > self._num_paid:
            self._ready_at_s.extend([time_s + self._scaling.cold_start_s] * (desired - self._num_paid))
        else:
            self._num_ready = desired
        self._num_paid = desired

    def _bill(self, time_s: float) -> None:
        """Pay what there was since the last time, within the load's time."""
        until_s = min(time_s, self._duration_s)
        self.instance_s += self._num_paid * max(until_s - self._paid_until_s, 0.0)
        self._paid_until_s = max(self._paid_until_s, until_s)
