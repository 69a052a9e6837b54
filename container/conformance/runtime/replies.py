"""How answers reach the client, and how a client that leaves ends what was begun for it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from container.conformance.runtime.errors import StreamFailure
from container.conformance.runtime.event_stream import encode_exception, encode_payload_part

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The work's result. The request's body must have been read.

    Raises:
        ClientDisconnect: the client left first; the work has been cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def events(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The parts as PayloadPart events; a failure as the exception event that ends them."""
    try:
        async for part in parts:
            yield encode_payload_part(part)
    except StreamFailure as failure:
        yield encode_exception(failure.exception_type, failure.payload)


class StreamReply(StreamingResponse):
    """A streamed answer that gives back what it holds when it ends, however it ends.

    A failure that the content does not tell itself, or a client that takes nothing for longer than the limit, cuts the connection.
    """

    def __init__(
        self, content: AsyncGenerator[bytes], status: int, headers: Mapping[str, str], held: contextlib.AsyncExitStack, limit_s: float
    ) -> None:
        super().__init__(content, status, headers)
        self._held = held
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            try:
                async with asyncio.timeout(self._limit_s):
                    await super().__call__(scope, receive, send)
            except (StreamFailure, TimeoutError) as error:
                # Returning without the last, empty chunk makes the server close the connection: all that plain HTTP can say.
                _log.warning("stream cut off: %s", error or "the client took nothing")
