"""The container's side: opens a request to it, reads its answer whole, or relays it piece by piece under a deadline.

Every request has a connection of its own, which ends when the client's does. Knows no platform errors but those of the connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

import httpx

from container.conformance.runtime.errors import (
    StreamFailure,
    internal_stream_failure,
    service_unavailable,
    stream_broken,
    stream_time_exceeded,
)
from container.conformance.runtime.splitting import Resplitter

_CONNECT_TIMEOUT_S = 2.0
_MERGE_WAIT_S = 0.02
"""How long held bytes wait for others to be merged with: short enough not to be felt, long enough to happen."""


class ContainerBroke(Exception):
    """The container closed the connection, or spoke no HTTP, before its answer was whole."""


def new_client() -> httpx.AsyncClient:
    """A client that adds nothing of its own: no proxy, no default header that is sent, no reuse of connections, no redirects."""
    return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))


async def open_call(client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
    """POST and wait for the answer's head, without a deadline; the caller sets one and closes the response.

    Raises:
        PlatformError: ServiceUnavailable, nothing listens.
        ContainerBroke: no answer came.
    """
    # Built by hand, so that the client's default headers (Accept-Encoding, User-Agent) are not added.
    request = httpx.Request("POST", url, headers=dict(headers), content=body, extensions={"timeout": {"connect": _CONNECT_TIMEOUT_S}})
    try:
        return await client.send(request, stream=True)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise service_unavailable("nothing listens at the container's address") from error
    except httpx.HTTPError as error:
        raise ContainerBroke(str(error)) from error


async def read_whole(response: httpx.Response, limit_bytes: int) -> bytes | None:
    """The answer's body; `None` if it is longer than the limit or ends before its end."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit_bytes:
                return None
    except httpx.HTTPError:
        return None
    return bytes(body)


class _Reader:
    """Reads a body with a time limit that leaves what comes later readable."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.aiter_raw()
        self._reading: asyncio.Task[bytes | StreamFailure] | None = None

    async def read(self, timeout_s: float) -> bytes:
        """The next bytes; none at the end.

        Raises:
            TimeoutError: nothing came in time.
            StreamFailure: the connection broke.
        """
        if timeout_s <= 0:
            raise TimeoutError
        self._reading = self._reading or asyncio.create_task(self._next())
        await asyncio.wait({self._reading}, timeout=timeout_s)
        if not self._reading.done():
            raise TimeoutError
        reading, self._reading = self._reading, None
        read = reading.result()
        if isinstance(read, StreamFailure):
            raise read
        return read

    async def _next(self) -> bytes | StreamFailure:
        # Given, not raised: when the client has left, nobody asks the task for its exception.
        try:
            return await anext(self._chunks, b"")
        except httpx.ReadError:
            return stream_broken()
        except httpx.RemoteProtocolError as error:
            # The one class covers an early end and an answer that is not HTTP; only the text tells them apart.
            return stream_broken() if "peer closed" in str(error) else internal_stream_failure()

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            # Not gather: cancelled itself, as it is when the client leaves, it would cancel the task again, in the midst of closing.
            await asyncio.wait({self._reading})


async def relay(response: httpx.Response, splitter: Resplitter, deadline_s: float) -> AsyncGenerator[bytes]:
    """The answer's body, cut anew. The next bytes are read only when the last have been taken. The deadline is in the loop's time.

    Raises:
        StreamFailure: the deadline passed, or the container broke off. What it had sent has been given before.
    """
    now_s = asyncio.get_running_loop().time
    failure: StreamFailure | None = None
    async with contextlib.aclosing(_Reader(response)) as reader:
        while failure is None:
            left_s = deadline_s - now_s()
            try:
                chunk = await reader.read(min(left_s, _MERGE_WAIT_S) if splitter.is_holding else left_s)
            except TimeoutError:
                parts = splitter.flush()
                failure = stream_time_exceeded() if now_s() >= deadline_s else None
            except StreamFailure as error:
                parts, failure = [], error
            else:
                if not chunk:
                    break
                parts = splitter.feed(chunk)
            for part in parts:
                yield part
    for part in splitter.flush():
        yield part
    if failure is not None:
        raise failure
