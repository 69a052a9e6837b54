"""How a plan is divided among client processes: how many of them, and which requests each gets. A conversation stays in one."""

import math
from dataclasses import replace

from benchmarks.client.driver import units_of
from benchmarks.load.plan import Plan, Request

# Streams of 20 tokens a second are 10 000 pieces a second then, which take one process an eighth of a core
# (benchmarks/results/client-ceiling-*.json).
_STREAMS_A_PROCESS = 512
_REQUESTS_PER_S_A_PROCESS = 200.0


def choose_num_processes(concurrency: int | None, rate: float | None, num_cpus: int) -> int:
    """One, unless the load is more than one process can drive on time; never more than half of the cores, as others need some."""
    by_streams = math.ceil((concurrency or 0) / _STREAMS_A_PROCESS)
    by_rate = math.ceil((rate or 0.0) / _REQUESTS_PER_S_A_PROCESS)
    return max(1, min(max(by_streams, by_rate), num_cpus // 2))


def divided(plan: Plan, num_processes: int) -> list[Plan]:
    """One plan a process. Places and requests are divided evenly: the requests of a place are dealt in turn, a conversation as one.

    An open loop's bound on what runs at once is divided too, so a request may wait for a place of its process while another has one free.
    """
    units = units_of(plan.requests)
    num_parts = max(1, min(num_processes, len(units), plan.concurrency or len(units)))
    num_places = plan.concurrency or num_parts
    parts: list[list[Request]] = [[] for _ in range(num_parts)]
    for index, unit in enumerate(units):
        parts[index % num_places % num_parts].extend(unit)
    shares = [len(range(part, num_places, num_parts)) for part in range(num_parts)]
    return [
        replace(plan, requests=tuple(requests), concurrency=None if plan.concurrency is None else share)
        for requests, share in zip(parts, shares, strict=True)
    ]
