"""How much may wait: beyond what the engine holds at once, a bounded queue of requests and of tokens. What comes then is told when to
return, from what is queued and the engine's measured rate. Requests are counted here; tokens are known in the engine only.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.errors import error_response
from serving.engine.interface import Engine
from serving.errors import NotReady, Overloaded, RequestError

_MIN_RETRY_S, _MAX_RETRY_S = 1, 300
_WITHOUT_RATE_S = 5
"""Before anything has been measured."""
_REFUSED = Counter("tokenport_requests_refused", "Requests refused because the queue was full, by the limit they met.", ["limit"])


class Queue:
    """Requests admitted and not yet answered."""

    def __init__(self, engine: Engine, max_queue: int, max_queue_tokens: int | None) -> None:
        self._engine = engine
        self._max_queue = max_queue
        self._max_queue_tokens = max_queue_tokens
        self.count = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue and in the engine.

        Raises:
            Overloaded: there is none; `Retry-After` says in how many seconds there should be.
        """
        limit, waiting = self._exceeded()
        if limit is not None:
            _REFUSED.labels(limit).inc()
            retry_after_s = self.retry_after_s()
            raise Overloaded(f"{waiting}; come back in {retry_after_s} s", headers={"Retry-After": str(retry_after_s)})
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    def retry_after_s(self) -> int:
        """Seconds in which the engine works off what waits, at the rate measured so far."""
        work = self._engine.work
        rate = work.tokens_per_s
        if not rate:
            return _WITHOUT_RATE_S
        share_waiting = max(0, self.count - self._engine.capacity.num_sequences + 1) / max(1, self.count)
        tokens = max(work.num_tokens * share_waiting, work.num_tokens - self._engine.capacity.num_tokens)
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, math.ceil(tokens / rate)))

    def _exceeded(self) -> tuple[str | None, str]:
        capacity = self._engine.capacity
        waiting = self.count - capacity.num_sequences
        if waiting >= self._max_queue:
            return "requests", f"{self.count} requests are being answered or wait, and no more than {self._max_queue} may wait (max_queue)"
        max_tokens = capacity.num_tokens if self._max_queue_tokens is None else self._max_queue_tokens
        waiting_tokens = math.ceil(self._engine.work.num_tokens - capacity.num_tokens)
        if waiting_tokens > max_tokens:
            return "tokens", f"{waiting_tokens} tokens wait, and no more than {max_tokens} may (max_queue_tokens)"
        return None, ""


class Admission:
    """ASGI middleware: gives each request for tokens its place, and every 429 and 503 a `Retry-After`."""

    def __init__(self, app: ASGIApp, queue: Queue) -> None:
        self._app = app
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not generates(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_with_retry(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (Overloaded.status, NotReady.status):
                MutableHeaders(scope=message).setdefault("Retry-After", str(self._queue.retry_after_s()))
            await send(message)

        try:
            with self._queue.place():
                await self._app(scope, receive, send_with_retry)
        except RequestError as error:
            await error_response(error)(scope, receive, send)


def generates(path: str) -> bool:
    """Whether a POST to `path` asks for tokens."""
    return path == "/invocations" or path.startswith("/v1/")
