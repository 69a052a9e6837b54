"""How many calls are let in: a token bucket for calls a second, a counter for calls at a time."""

import contextlib
import time
from collections.abc import Callable, Iterator

from container.conformance.runtime.errors import throttled


class Throttle:
    """The limits of one endpoint; `None` means no limit."""

    def __init__(self, rps: float | None, max_concurrency: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rps = rps
        self._capacity = max(1.0, rps or 0.0)
        self._tokens = self._capacity
        self._max_concurrency = max_concurrency
        self._running = 0
        self._clock = clock
        self._refilled = clock()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds a place from the call's start to the end of its answer.

        Raises:
            PlatformError: ThrottlingException.
        """
        if self._max_concurrency is not None and self._running >= self._max_concurrency:
            raise throttled()
        self._take_token()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _take_token(self) -> None:
        if self._rps is None:
            return
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._refilled) * self._rps)
        self._refilled = now
        if self._tokens < 1:
            raise throttled()
        self._tokens -= 1
