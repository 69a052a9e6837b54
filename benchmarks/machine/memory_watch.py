"""The most memory that a server's processes held, phase by phase: a thread looks several times a second.

What rises and falls between two looks is missed, so a peak is a lower bound. On the CPU memory is that of the processes, pages that they
share counted once (PSS); on GPUs what is used of all cards, less what was before the server started.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from benchmarks.machine.nvml import Gpus
from benchmarks.machine.servers import Running

INTERVAL_S = 0.25
_JOIN_DEADLINE_S = 10.0


class MemoryWatch:
    """Looks from entering the block until leaving it; what is found belongs to the phase that `begin` named last."""

    def __init__(self, server: Running | None, gpus: Gpus | None = None, interval_s: float = INTERVAL_S) -> None:
        self.peaks: dict[str, dict[str, int]] = {}
        """Phase -> `pss_bytes`, `gpu_used_bytes` -> the most; without a process or a GPU to look at, without that."""
        self._server = server
        self._gpus = gpus
        self._interval_s = interval_s
        self._phase = ""
        self._gpu_before = self._gpu_used() or 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)

    def begin(self, phase: str) -> None:
        """From now on it is this phase."""
        with self._lock:
            self._phase = phase

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            with self._lock:
                phase = self._phase
            found = self._look()
            with self._lock:
                most = self.peaks.setdefault(phase, {})
                for name, size in found.items():
                    most[name] = max(size, most.get(name, 0))

    def _look(self) -> Mapping[str, int]:
        found = {} if self._server is None else {"pss_bytes": self._server.pss_bytes()}
        used = self._gpu_used()
        return found if used is None else {**found, "gpu_used_bytes": max(0, used - self._gpu_before)}

    def _gpu_used(self) -> int | None:
        if self._gpus is None:
            return None
        return sum(reading.memory_used_bytes or 0 for reading in self._gpus.read())

    def __enter__(self) -> Self:
        """Start looking."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join(_JOIN_DEADLINE_S)
