"""The bounded look-ahead: the beginning of a tier's stream is held until so many tokens are there, or so much time has passed.

Then the stream is either dropped, which aborts it, or goes on from its first chunk. A wait that runs out cancels nothing: what was being
waited for comes as the next chunk.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

from serving.cascade.asked import usage_of
from serving.cascade.costs import Usage
from serving.cascade.token_signals import Token
from serving.cascade.tokens import tokens_of
from serving.engine.interface import Chunks, Kind
from serving.errors import TierFailure


class Draft:
    """A stream whose beginning can be looked at before it is taken. `tokens`: those that have been looked at."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._held: deque[str] = deque()
        self._pending: asyncio.Future[str | None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._usage: Usage | None = None
        self._is_over = False
        self.tokens: list[Token] = []

    async def look_ahead(self, kind: Kind, num_tokens: int, until: float) -> None:
        """Return when `num_tokens` tokens are held, the stream has ended, or the event loop's time is `until`.

        Raises:
            TierFailure: the stream broke before.
        """
        loop = asyncio.get_running_loop()
        while len(self.tokens) < num_tokens:
            self._pending = self._pending or asyncio.ensure_future(self._next())
            await asyncio.wait((self._pending,), timeout=max(0.0, until - loop.time()))
            if not self._pending.done():
                return
            text, self._pending = self._pending.result(), None
            if text is None:
                return
            self._held.append(text)
            self._look_at(kind, json.loads(text))

    def usage(self) -> Usage:
        """What has been used, as far as it was looked at."""
        return self._usage or Usage(None, len(self.tokens))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._held:
            return self._held.popleft()
        if self._pending is not None:
            text, self._pending = await self._pending, None
        else:
            text = await self._next()
        if text is None:
            raise StopAsyncIteration
        return text

    async def aclose(self) -> None:
        """Abort the request. Who is cancelled meanwhile leaves nothing open: it is closed all the same."""
        self._closing = self._closing or asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            # A stream that is being waited for cannot be closed.
            await asyncio.gather(self._pending, return_exceptions=True)
            self._pending = None
        await self._chunks.aclose()

    async def _next(self) -> str | None:
        text = None if self._is_over else await anext(self._chunks, None)
        self._is_over = text is None
        return text

    def _look_at(self, kind: Kind, chunk: Mapping[str, Any]) -> None:
        if chunk.get("error") is not None:
            raise TierFailure(str(chunk["error"].get("message")), reason="broken")
        self._usage = usage_of(chunk) or self._usage
        self.tokens += tokens_of(kind, chunk)
