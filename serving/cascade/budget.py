"""What may be spent in a window of time, by each API key or by all together. Spending is known when an answer has ended, so that answers
on their way at the same time may go beyond by their own cost."""

import time
from collections.abc import Callable

from serving.cascade.config import BudgetConfig

_ALL = ""


class Budget:
    """Windows begin with the first spending and last `window_s`."""

    def __init__(self, config: BudgetConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._windows: dict[str, tuple[float, float]] = {}

    @property
    def refuses(self) -> bool:
        """Whether requests beyond it are refused; otherwise the first tier answers them."""
        return self._config.then == "refuse"

    def exceeded_for_s(self, caller: str) -> float:
        """Seconds until something may be spent again, 0 if it may now."""
        until, usd = self._windows.get(self._key(caller), (0.0, 0.0))
        return max(0.0, until - self._clock()) if usd >= self._config.usd else 0.0

    def spend(self, caller: str, usd: float) -> None:
        """Something was spent. There are no more windows than API keys."""
        key, now = self._key(caller), self._clock()
        until, spent_usd = self._windows.get(key, (0.0, 0.0))
        self._windows[key] = (until, spent_usd + usd) if now < until else (now + self._config.window_s, usd)

    def _key(self, caller: str) -> str:
        return caller if self._config.per == "key" else _ALL
