"""What requests cost. Tokens have a price; a machine that is paid by the hour shares each moment among the answers that run on it then,
and a moment without any is idle: the answers' costs and the idle time add up to the bill."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.cascade.config import Price

_TOKENS_PER_PRICE = 1_000_000
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer. `num_prompt`: None where the other side did not say."""

    num_prompt: int | None
    num_completion: int


class Meter:
    """Runs for one tier."""

    def __init__(self, price: Price, clock: Callable[[], float] = time.monotonic) -> None:
        self._price = price
        self._clock = clock
        self._num_running = 0
        self._looked_at = clock()
        self._shared_usd = 0.0
        """What one answer would have cost if it had run all the time, beside those that did."""
        self._idle_usd = 0.0

    def begin(self) -> float:
        """An answer begins; what is returned goes to `end`."""
        self._look()
        self._num_running += 1
        return self._shared_usd

    def end(self, begun: float) -> float:
        """It has ended. Returns the USD of its share of the machine's time."""
        share_usd = self.share_usd(begun)
        self._num_running -= 1
        return share_usd

    def share_usd(self, begun: float) -> float:
        """What an answer that is still running has cost of the machine's time so far."""
        self._look()
        return self._shared_usd - begun

    def idle_usd(self) -> float:
        """What the time without any answer has cost so far."""
        self._look()
        return self._idle_usd

    def tokens_usd(self, usage: Usage) -> float:
        """What the tokens cost."""
        return (self._price.input * (usage.num_prompt or 0) + self._price.output * usage.num_completion) / _TOKENS_PER_PRICE

    def _look(self) -> None:
        now = self._clock()
        usd = self._price.per_hour / _SECONDS_PER_HOUR * (now - self._looked_at)
        self._looked_at = now
        if self._num_running:
            self._shared_usd += usd / self._num_running
        else:
            self._idle_usd += usd
