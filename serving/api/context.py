"""Around every request: its id, how long it may take, its place in the count of those running, its line in the access log.

SageMaker's Custom-Attributes and Inference-Id come back in the response, which the platform leaves to the container.
"""

import asyncio
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.sessions import SESSION_HEADER
from serving.engine import work
from serving.logs import request_id as current_request_id

logger = logging.getLogger("tokenport.access")

PROBE_PATHS = frozenset({"/ping", "/health", "/metrics"})
"""Asked every few seconds by machines: not counted as work, logged at debug only."""

_INFERENCE_ID = "x-amzn-sagemaker-inference-id"
_CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_ID_HEADERS = ("x-request-id", _INFERENCE_ID)
# SageMaker's limits: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
_MAX_ID_LENGTH = 64
_MAX_ATTRIBUTES_LENGTH = 1024
_STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")
_SWITCHING_PROTOCOLS = 101


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
    """ASGI middleware. The id is the client's (`X-Request-Id`, SageMaker's `Inference-Id`) or a new one; response and log carry it.

    `deadline_s`, `stream_deadline_s`: seconds that an answer may take, 0 for no limit.
    """

    def __init__(self, app: ASGIApp, in_flight: InFlight, deadline_s: float, stream_deadline_s: float) -> None:
        self._app = app
        self._in_flight = in_flight
        self._deadline_s = deadline_s or None
        self._stream_deadline_s = stream_deadline_s or None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identifier = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = identifier
        # vLLM's routes take the id from this header.
        MutableHeaders(scope=scope)["x-request-id"] = identifier
        limits = work.Scope(deadline_s=self._deadline_s, stream_deadline_s=self._stream_deadline_s, session=headers.get(SESSION_HEADER, ""))
        echoed = _echoed(headers)
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                status = message.get("status", _SWITCHING_PROTOCOLS)
                MutableHeaders(scope=message).update({"x-request-id": identifier, **echoed, **limits.headers, **_ended_early(limits)})
            await send(message)

        tokens = current_request_id.set(identifier), work.current_scope.set(limits)
        is_probe = scope["path"] in PROBE_PATHS
        try:
            # Nor is a socket work: the requests on it are counted there.
            if is_probe or scope["type"] == "websocket":
                await self._app(scope, receive, send_with_headers)
            else:
                with self._in_flight:
                    await self._app(scope, receive, send_with_headers)
        finally:
            logger.log(
                logging.DEBUG if is_probe else logging.INFO,
                "request",
                extra={
                    "method": scope.get("method", "WEBSOCKET"),
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.monotonic() - limits.started, 4),
                    **_logged(echoed, limits),
                },
            )
            current_request_id.reset(tokens[0])
            work.current_scope.reset(tokens[1])


def _echoed(headers: Headers) -> dict[str, str]:
    limits = {_CUSTOM_ATTRIBUTES: _MAX_ATTRIBUTES_LENGTH, _INFERENCE_ID: _MAX_ID_LENGTH}
    return {name: value for name, limit in limits.items() if (value := headers.get(name)) and _is_clean(value, limit)}


def _ended_early(limits: work.Scope) -> dict[str, str]:
    """Headers for an answer that was ended early. Of a stream this is not known yet when its headers go out: its last chunk tells."""
    if limits.ended_by is None:
        return {}
    shown: dict[str, str] = {"x-tokenport-ended-by": limits.ended_by}
    # Without one of the server's own it was the cascade's.
    if limits.ended_by == "deadline" and limits.deadline_s is not None:
        shown["x-tokenport-deadline-s"] = f"{limits.deadline_s:g}"
    return shown


def _logged(echoed: dict[str, str], limits: work.Scope) -> dict[str, str]:
    names = {_CUSTOM_ATTRIBUTES: "custom_attributes", _INFERENCE_ID: "inference_id"}
    logged = {names[name]: value for name, value in echoed.items()}
    return logged | ({"ended_by": limits.ended_by} if limits.ended_by else {})


def _request_id(headers: Headers) -> str:
    for name in _ID_HEADERS:
        value = headers.get(name, "")
        if value and _is_clean(value, _MAX_ID_LENGTH):
            return value
    return uuid.uuid4().hex


def _is_clean(value: str, max_length: int) -> bool:
    return len(value) <= max_length and value.isascii() and value.isprintable()
