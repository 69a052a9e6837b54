"""A request's body is read whole before anything else looks at it, and no larger and no slower than the limits.

Every route needs the whole body, so nothing is lost by it; what is too large or does not come is refused in one place, `/v1/*` included.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.errors import error_response
from serving.errors import BodyTooLarge, RequestTimeout

_DEADLINE_S = 60.0
"""For the whole body. SageMaker gives an invocation no longer than this in all."""
_DISCARD_FACTOR = 4
"""Of a body that is too large, so many times the limit is read and thrown away: a client cut off while sending may never see the answer."""


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(_DEADLINE_S):
                messages = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            error = RequestTimeout(f"the body did not arrive within {_DEADLINE_S:.0f} s", headers={"Connection": "close"})
            await error_response(error)(scope, receive, send)
        except BodyTooLarge as error:
            await error_response(error)(scope, receive, send)
        else:
            await self._app(scope, replay(messages, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> list[Message]:
        """The body as one message, then a disconnect if there was one."""
        declared = headers.get("content-length", "")
        too_large = declared.isdigit() and int(declared) > self._max_bytes
        parts: list[bytes] = []
        num_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return [{"type": "http.request", "body": b"".join(parts), "more_body": False}, message]
            part = message.get("body", b"")
            num_bytes += len(part)
            too_large = too_large or num_bytes > self._max_bytes
            more = message.get("more_body", False)
            if too_large and (not more or num_bytes > _DISCARD_FACTOR * self._max_bytes):
                raise self._error(max(num_bytes, int(declared) if declared.isdigit() else 0))
            if too_large:
                parts.clear()
                continue
            parts.append(part)
            if not more:
                return [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

    def _error(self, num_bytes: int) -> BodyTooLarge:
        text = f"the body has {num_bytes} bytes, and no more than {self._max_bytes} are taken (max_body_bytes)"
        return BodyTooLarge(text, headers={"Connection": "close"})


def replay(messages: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives `messages` first, then what `receive` gives."""

    async def replayed() -> Message:
        return messages.pop(0) if messages else await receive()

    return replayed
