"""What a service lets through a minute, and clients that try again.

No more than the limits in any 60 s; one request above them is refused and sent again after botocore's delay (botocore/retries/standard.py:
at random up to 1 s, 2 s, 4 s, ... and 20 s at most), so many times in all. Its own tokens count as they are known in the end: a reservation
of `max_tokens`, as Bedrock makes, is not simulated.
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.planner.cost.requests import Floats, Requests

MINUTE_S = 60.0
_MAX_DELAY_S = 20.0


@dataclass(frozen=True)
class Quota:
    """Limits a minute, None for no limit. `num_attempts` of a client, the first among them: 3 in botocore's standard mode."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    num_attempts: int = 3


def admit(requests: Requests, quota: Quota, *, seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """How long each request waited until it was let in, and whether it was refused for good."""
    wait_s, is_refused = np.zeros(len(requests)), np.zeros(len(requests), dtype=bool)
    limits, demands = _limits(requests, quota)
    if not limits:
        return wait_s, is_refused
    window = _Window(limits)
    random = np.random.default_rng(seed).random
    arrivals = requests.arrival_s.tolist()
    # Sorted, and so a heap already.
    due = [(time, index, 0) for index, time in enumerate(arrivals)]
    while due:
        time, index, attempt = heapq.heappop(due)
        if window.takes(time, demands[index]):
            wait_s[index] = time - arrivals[index]
        elif attempt + 1 < quota.num_attempts:
            delay_s = random() * min(2.0**attempt, _MAX_DELAY_S)
            heapq.heappush(due, (time + delay_s, index, attempt + 1))
        else:
            is_refused[index] = True
    return wait_s, is_refused


def _limits(requests: Requests, quota: Quota) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """The limits there are, and what each request takes of each."""
    columns = [
        (quota.requests_per_minute, np.ones(len(requests))),
        (quota.tokens_per_minute, requests.input_tokens + requests.output_tokens),
        (quota.input_tokens_per_minute, requests.input_tokens),
        (quota.output_tokens_per_minute, requests.output_tokens),
    ]
    limited = [(limit, column) for limit, column in columns if limit is not None]
    demands = list(zip(*(column.tolist() for _, column in limited), strict=True))
    return tuple(limit for limit, _ in limited), demands


class _Window:
    """What was let in during the last minute."""

    def __init__(self, limits: tuple[float, ...]) -> None:
        self._limits = limits
        self._used = [0.0] * len(limits)
        self._let_in: deque[tuple[float, tuple[float, ...]]] = deque()

    def takes(self, time: float, demand: tuple[float, ...]) -> bool:
        """Whether there is room for it now; if so, it is taken."""
        used, let_in = self._used, self._let_in
        while let_in and let_in[0][0] <= time - MINUTE_S:
            for kind, amount in enumerate(let_in.popleft()[1]):
                used[kind] -= amount
        for kind, amount in enumerate(demand):
            # 1e-6 of a token: sums of numbers that are not whole.
            if used[kind] + amount > self._limits[kind] + 1e-6:
                return False
        for kind, amount in enumerate(demand):
            used[kind] += amount
        let_in.append((time, demand))
        return True
