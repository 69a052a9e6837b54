"""A function on Lambda in front of an API: called by each request, paid for as long as it waits for the answer and hands it on.

Each of its environments works on one request at a time, and a request that finds none warm waits for a cold start, which is paid too
(since August 2025). How long an idle environment stays warm AWS does not say.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.planner.cost.options import Charge, OnDemand, Run, months
from serving.planner.cost.outcome import Outcome
from serving.planner.cost.prices import LambdaPrice
from serving.planner.cost.requests import Floats, Requests


@dataclass(frozen=True)
class Function:
    """`memory_gb` that it is given and paid for. The API's speed must be known: the function is paid while it waits."""

    price: LambdaPrice
    memory_gb: float
    cold_start_s: float
    keep_warm_s: float
    on_demand: OnDemand

    @property
    def name(self) -> str:
        """As the report calls it."""
        return "lambda + on-demand"

    def run(self, requests: Requests) -> Run:
        """A cold start delays its own request only; the API's quota is counted at the arrival."""
        api = self.on_demand.run(requests)
        # A refused request is worth no time of the function: its attempts are answered at once.
        duration_s = np.nan_to_num(api.outcome.e2e_s)
        is_cold = cold_starts(requests.arrival_s, duration_s, cold_start_s=self.cold_start_s, keep_warm_s=self.keep_warm_s)
        delay_s = is_cold * self.cold_start_s
        found = api.outcome
        gb_seconds = float((duration_s + delay_s).sum()) * self.memory_gb
        source = f"{self.price.source} ({self.price.as_of})"
        charges = (
            Charge("function's time", gb_seconds / months(requests), "GB-second", self.price.usd_per_gb_second, source),
            Charge("function's calls", len(requests) / 1e6 / months(requests), "million", self.price.usd_per_million_requests, source),
        )
        delayed = Outcome(found.is_refused, found.wait_s + delay_s, found.ttft_s + delay_s, found.e2e_s + delay_s)
        return Run(delayed, api.charges + charges, api.million_tokens_per_month)


def cold_starts(arrival_s: Floats, duration_s: Floats, *, cold_start_s: float, keep_warm_s: float) -> NDArray[np.bool_]:
    """Which requests meet a cold environment. `duration_s` of the work without it; an environment idle longer than `keep_warm_s` is gone,
    and of those that are warm the one used last is taken."""
    is_cold = np.zeros(len(arrival_s), dtype=bool)
    ends_s: list[float] = []
    idle_since_s: deque[float] = deque()
    durations: Sequence[float] = duration_s.tolist()
    for index, time_s in enumerate(arrival_s.tolist()):
        while ends_s and ends_s[0] <= time_s:
            idle_since_s.append(heapq.heappop(ends_s))
        while idle_since_s and idle_since_s[0] + keep_warm_s < time_s:
            idle_since_s.popleft()
        if idle_since_s:
            idle_since_s.pop()
        else:
            is_cold[index] = True
        heapq.heappush(ends_s, time_s + durations[index] + cold_start_s * is_cold[index])
    return is_cold
