"""The memory ledger: what a rank measured becomes parts that add up to its device; and when the ranks are asked again.

Measuring is `ledger_worker.py`, in the engine's processes. They answer between two steps, so an engine that is busy answers late and one
that stands still not at all: whoever asks waits no longer than his deadline, and then gets the last measurement with its age.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.engine.interface import DeviceMemory, Memory
from serving.errors import NotReady

_FRESH_S = 1.0
"""How long a measurement is as good as new: scraping more often does not ask the engine more often."""


@dataclass(frozen=True)
class Measured:
    """What one rank found, in bytes; field for field what `ledger_worker.measure` sends.

    `free_bytes` and `process_bytes` are those of this moment; the latter count weights, KV cache, graphs and `activation_held_bytes`, which
    is what steps have left allocated for the next ones.
    """

    rank: int
    device: str
    total_bytes: int
    free_bytes: int
    process_bytes: int
    weights_by_dtype: Mapping[str, int]
    kv_cache_bytes: int
    kv_cache_blocks: int
    kv_cache_tokens: int
    kv_cache_sequences: float
    cuda_graph_bytes: int
    activation_held_bytes: int
    activation_peak_bytes: int


def account(measured: Measured) -> DeviceMemory:
    """Make parts that add up of figures that overlap: what the activation peak needs beyond what is held now would come out of `free`."""
    weights = sum(measured.weights_by_dtype.values())
    held = measured.activation_held_bytes
    peak = max(measured.activation_peak_bytes, held)
    return DeviceMemory(
        rank=measured.rank,
        device=measured.device,
        total_bytes=measured.total_bytes,
        weights_bytes=weights,
        weights_by_dtype=dict(measured.weights_by_dtype),
        kv_cache_bytes=measured.kv_cache_bytes,
        kv_cache_blocks=measured.kv_cache_blocks,
        kv_cache_tokens=measured.kv_cache_tokens,
        kv_cache_sequences=measured.kv_cache_sequences,
        activation_peak_bytes=peak,
        cuda_graph_bytes=measured.cuda_graph_bytes,
        non_torch_bytes=max(0, measured.process_bytes - weights - measured.kv_cache_bytes - measured.cuda_graph_bytes - held),
        other_bytes=max(0, measured.total_bytes - measured.free_bytes - measured.process_bytes),
        free_bytes=max(0, measured.free_bytes - (peak - held)),
    )


def own_bytes(processes: Sequence[tuple[int, int | None]], pid: int, least_bytes: int, used_bytes: int) -> int:
    """This process's share of the `used_bytes` of its GPU, from NVML's list of (process id, bytes or None).

    In a container the list may have the host's process ids, or nothing. Then a single process with at least `least_bytes`, which is what
    torch alone has, is this one; where that does not tell either, all that is used counts as ours.
    """
    possible = {number: size for number, size in processes if size is not None and least_bytes <= size <= used_bytes}
    if pid in possible:
        return possible[pid]
    return next(iter(possible.values())) if len(possible) == 1 else used_bytes


class Ledger:
    """The last measurement, made anew when someone asks for it and it is old. One is under way at a time, however many ask."""

    def __init__(self, measure: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]], clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._clock = clock
        self._devices: tuple[DeviceMemory, ...] | None = None
        self._measured_at = 0.0
        self._measuring: asyncio.Task[None] | None = None

    async def read(self, deadline_s: float) -> Memory:
        """See `Engine.memory`. What the measuring raises is raised while nothing has been measured yet."""
        if self._devices is None or self._clock() - self._measured_at > _FRESH_S:
            if self._measuring is None or self._measuring.done():
                self._measuring = asyncio.create_task(self._renew())
                # It may fail when nobody waits for it any more, which asyncio would complain of.
                self._measuring.add_done_callback(lambda task: task.cancelled() or task.exception())
            done, _ = await asyncio.wait({self._measuring}, timeout=deadline_s)
            failure = next((task.exception() for task in done), None)
            if failure is not None and self._devices is None:
                raise failure
        if self._devices is None:
            raise NotReady(f"the engine has not measured its memory yet, and did not within {deadline_s:g} s")
        return Memory(self._devices, as_of_s=self._clock() - self._measured_at)

    async def _renew(self) -> None:
        found = await self._measure()
        self._devices = tuple(sorted((account(Measured(**one)) for one in found), key=lambda device: device.rank))
        self._measured_at = self._clock()
