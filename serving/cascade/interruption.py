"""Ends what is being waited for, at the time of the server's choosing. Not a cancellation: whoever waits gets to say how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Interruption:
    """At most one wait at a time."""

    def __init__(self) -> None:
        self.has_come = False
        self._waiting: asyncio.Timeout | None = None

    def come(self) -> None:
        """End the present wait and all that follow."""
        self.has_come = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def ends(self) -> AsyncIterator[None]:
        """Around a wait. Raises TimeoutError when the interruption comes within, or has come before."""
        try:
            async with asyncio.timeout(0 if self.has_come else None) as self._waiting:
                yield
        finally:
            self._waiting = None
