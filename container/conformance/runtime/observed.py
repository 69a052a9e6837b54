"""Around the app: a request id on every answer, and one log line a call. Never logs bodies, credentials or attributes."""

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)


class Observed:
    """The app, observed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        said = "no answer"

        async def send_with_id(message: Message) -> None:
            nonlocal said
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-amzn-RequestId"] = str(uuid.uuid4())
                said = f"{message['status']} {headers.get('x-amzn-ErrorType', '')}".rstrip()
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _log.info("%s %s: %s after %.3f s", scope["method"], scope["path"], said, time.monotonic() - started)
