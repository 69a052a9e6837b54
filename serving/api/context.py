"""Around every request: its id, its place in the count of those running, its line in the access log. Never its content."""

import asyncio
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.logs import request_id as current_request_id

logger = logging.getLogger("tokenport.access")

PROBE_PATHS = frozenset({"/ping", "/health", "/metrics"})
"""Asked every few seconds by machines: not counted as work, logged at debug only."""

_ID_HEADERS = ("x-request-id", "x-amzn-sagemaker-inference-id")
_MAX_ID_LENGTH = 64  # SageMaker's limit for InferenceId


class InFlight:
    """How many requests are being answered, and a way to wait for none."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.count += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def wait_idle(self, deadline_s: float) -> bool:
        """Whether nothing is being answered any more, within `deadline_s`."""
        try:
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        except TimeoutError:
            return False
        return True


class RequestContext:
    """ASGI middleware. The id is the client's (`X-Request-Id`, SageMaker's `Inference-Id`) or a new one; response and log carry it."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = identifier
        # vLLM's routes take the id from this header.
        MutableHeaders(scope=scope)["x-request-id"] = identifier
        started = time.monotonic()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = identifier
            await send(message)

        token = current_request_id.set(identifier)
        is_probe = scope["path"] in PROBE_PATHS
        try:
            if is_probe:
                await self._app(scope, receive, send_with_id)
            else:
                with self._in_flight:
                    await self._app(scope, receive, send_with_id)
        finally:
            logger.log(
                logging.DEBUG if is_probe else logging.INFO,
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.monotonic() - started, 4),
                },
            )
            current_request_id.reset(token)


def _request_id(headers: Headers) -> str:
    for name in _ID_HEADERS:
        value = headers.get(name, "")
        if 0 < len(value) <= _MAX_ID_LENGTH and value.isascii() and value.isprintable():
            return value
    return uuid.uuid4().hex
