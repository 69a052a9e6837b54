"""A circuit breaker: what failed several times in a row is left alone for a while, then tried by one request."""

import time
from collections.abc import Callable


class Breaker:
    """Closed, open, or half open: after the cool-down one request is let through, and decides. Bounds are the caller's."""

    def __init__(self, max_failures: int, cooldown_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_failures = max_failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._num_failures = 0
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests are kept away."""
        return self.remaining_s > 0

    @property
    def remaining_s(self) -> float:
        """Seconds until the next try, 0 if it may be asked now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def try_pass(self) -> bool:
        """Whether it may be asked now. Where that is the one try after a cool-down, others are kept away for another cool-down, or until
        it has ended."""
        if self.is_open:
            return False
        if self._open_until is not None:
            self._open_until = self._clock() + self._cooldown_s
        return True

    def began(self) -> None:
        """It has begun to answer: all may ask it again. Failures are forgotten once an answer is whole."""
        self._open_until = None

    def succeeded(self) -> None:
        """It answered."""
        self._num_failures = 0
        self._open_until = None

    def failed(self) -> None:
        """It did not."""
        self._num_failures += 1
        if self._num_failures >= self._max_failures:
            self._open_until = self._clock() + self._cooldown_s
