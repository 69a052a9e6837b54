"""`WS /invocations-bidirectional-stream`: requests in, chunks out, as JSON frames on one socket, several at a time, each can be cancelled.

In: an invocation's body with an optional `id`, or `{"type": "cancel", "id"}`. Out: `chunk`s, and last `done`, `error` or `cancelled`, with
the request's `id`; an `error` whose `id` is null is about a frame that began nothing. A socket that closes, or whose client does not read,
takes its requests with it; an idle one counts as no work. Handshakes pass the gate like any request.
"""

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from serving.api.answering import answer
from serving.api.errors import as_request_error
from serving.api.lifecycle import State
from serving.api.schemas import parse_json_object
from serving.engine import work
from serving.engine.interface import Chunks
from serving.errors import InvalidRequest, NotReady, Overloaded, RequestError
from serving.logs import request_id as current_request_id

logger = logging.getLogger("tokenport.access")

MAX_RUNNING = 16
"""Requests that may run at once on one socket."""
_MAX_ID_LENGTH = 64
_SEND_DEADLINE_S = 30.0
"""A client that takes nothing for so long is gone."""
_DEATH_SHOWS_S = 0.6
"""Within this time of the first answer that fails with it, the engine's death is known to the lifecycle."""
_LOOK_S = 0.05
_SERVICE_RESTART, _INTERNAL_ERROR = 1012, 1011
_OVER = {State.DRAINING: _SERVICE_RESTART, State.STOPPED: _SERVICE_RESTART, State.FAILED: _INTERNAL_ERROR}
"""States that do not lead back to READY, and the code that a socket is closed with in them."""
_CANCELLED_STATUS = 499
"""nginx's; the access log shows it."""


async def bidirectional(websocket: WebSocket) -> None:
    """Serve one socket until it closes."""
    await websocket.accept()
    await _Conversation(websocket).run()


class _Gone(Exception):
    """Nothing can be sent any more."""


class _Conversation:
    """One socket and the requests that run on it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._state = websocket.app.state
        self._scope = work.current_scope.get() or work.Scope()
        self._tasks = asyncio.TaskGroup()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Read frames until the client leaves; then, or when nothing can be sent any more, abort what runs."""
        try:
            async with self._tasks:
                while (message := await self._websocket.receive())["type"] == "websocket.receive":
                    await self._on_frame(message)
                for task in self._running.values():
                    task.cancel()
        except* _Gone:
            pass

    async def _on_frame(self, message: Message) -> None:
        try:
            # Frames are binary where SageMaker's client names no data type.
            frame = parse_json_object(message.get("text") or message.get("bytes") or "", "the frame")
            kind = frame.pop("type", None)
            if kind == "cancel":
                await self._cancel(frame)
            elif kind in (None, "request"):
                await self._begin(frame)
            else:
                raise InvalidRequest(f"type: expected 'request', 'cancel' or none, got {str(kind)[:_MAX_ID_LENGTH]!r}", param="type")
        except RequestError as error:
            await self._send_error(None, error)

    async def _cancel(self, frame: dict[str, Any]) -> None:
        identifier = frame.pop("id", None)
        if frame:
            raise InvalidRequest(f"a cancel frame has 'type' and 'id' only: remove {min(frame)!r}", param=min(frame))
        task = self._running.get(identifier) if isinstance(identifier, str) else None
        if task is None:
            raise InvalidRequest(f"id: no request {str(identifier)[:_MAX_ID_LENGTH]!r} is running", param="id")
        task.cancel()
        await asyncio.wait((task,))
        if task.cancelled():  # and not just finished
            await self._send(identifier, "cancelled")
            await self._close_if_over()

    async def _begin(self, body: dict[str, Any]) -> None:
        number = next(self._numbers)
        identifier = body.pop("id", None)
        identifier = str(number) if identifier is None else identifier
        if not isinstance(identifier, str) or not 0 < len(identifier) <= _MAX_ID_LENGTH:
            raise InvalidRequest(f"id: expected a string of 1 to {_MAX_ID_LENGTH} characters, got {str(identifier)[:80]!r}", param="id")
        if identifier in self._running:
            raise InvalidRequest(f"id: {identifier!r} is running already", param="id")
        if (error := self._refusal()) is not None:
            await self._send_error(identifier, error)
            await self._close_if_over()
            return
        task = self._tasks.create_task(self._serve(identifier, body, number))
        self._running[identifier] = task
        task.add_done_callback(lambda _: self._forget(identifier, task))

    def _refusal(self) -> RequestError | None:
        if len(self._running) >= MAX_RUNNING:
            return Overloaded(f"{MAX_RUNNING} requests are running on this socket, and no more may: wait for one, or open another socket")
        lifecycle = self._state.lifecycle
        return None if lifecycle.is_ready else NotReady(f"the server is {lifecycle.state}")

    async def _serve(self, identifier: str, body: dict[str, Any], number: int) -> None:
        request_id = f"{self._websocket.state.request_id}-{number}"
        current_request_id.set(request_id)
        # What the socket carries is no invocation of SageMaker's that had to end within a minute: streamed or not, it has a stream's time.
        limit_s = self._scope.stream_deadline_s
        scope = work.Scope(deadline_s=limit_s, stream_deadline_s=limit_s, caller=self._scope.caller, session=self._scope.session)
        work.current_scope.set(scope)
        status = _CANCELLED_STATUS
        try:
            with self._state.in_flight:
                status = await self._answer(identifier, body, request_id, scope)
                # From here on the client may use the id again, and can cancel nothing.
                self._forget(identifier, asyncio.current_task())
                if status >= RequestError.status:
                    await self._until_over()
                await self._close_if_over()
        finally:
            self._log(status, scope)

    async def _answer(self, identifier: str, body: dict[str, Any], request_id: str, scope: work.Scope) -> int:
        """Send the answer, its end included. Returns the status that it would have had by HTTP."""
        if body.get("stream") is None:
            body["stream"] = True
        try:
            with self._state.queue.place():
                answered = await answer(self._state.engine, body, request_id)
                if isinstance(answered, bytes):
                    await self._send(identifier, "chunk", f'"data":{answered.decode()}')
                elif (status := await self._pass_on(identifier, answered)) is not None:
                    return status
        except _Gone:
            raise
        except Exception as error:
            refusal = as_request_error(error, "a request on a socket")
            await self._send_error(identifier, refusal)
            return refusal.status
        await self._send(identifier, "done", f'"ended_by":"{scope.ended_by}"' if scope.ended_by else "")
        return 200

    async def _pass_on(self, identifier: str, chunks: Chunks) -> int | None:
        """Send chunks as they come. Returns the status of the error that ended them, if one did."""
        try:
            async for chunk in chunks:
                if chunk.startswith('{"error"'):
                    error = json.loads(chunk)["error"]
                    await self._send(identifier, "error", f'"error":{json.dumps(error)}')
                    return int(error["code"])
                await self._send(identifier, "chunk", f'"data":{chunk}')
        finally:
            await chunks.aclose()
        return None

    async def _until_over(self) -> None:
        """Wait for the verdict: that a request failed and that the engine died look alike, and only the latter closes the socket."""
        give_up = time.monotonic() + _DEATH_SHOWS_S
        while self._state.lifecycle.state not in _OVER and time.monotonic() < give_up:  # noqa: ASYNC110 - a state machine has no events
            await asyncio.sleep(_LOOK_S)

    async def _close_if_over(self) -> None:
        lifecycle = self._state.lifecycle
        if lifecycle.state in _OVER and not self._running:
            await _within_deadline(self._websocket.close(_OVER[lifecycle.state], f"the server is {lifecycle.state}"))

    async def _send_error(self, identifier: str | None, error: RequestError) -> None:
        await self._send(identifier, "error", json.dumps(error.body())[1:-1])

    async def _send(self, identifier: str | None, kind: str, more: str = "") -> None:
        """Send a frame; `more` is the JSON text of its further members. Waits while the client does not read."""
        text = f'{{"id":{json.dumps(identifier)},"type":"{kind}"{"," if more else ""}{more}}}'
        await _within_deadline(self._websocket.send_text(text))

    def _forget(self, identifier: str, task: asyncio.Task[None] | None) -> None:
        if self._running.get(identifier) is task:
            del self._running[identifier]

    def _log(self, status: int, scope: work.Scope) -> None:
        logger.info(
            "request",
            extra={
                "method": "FRAME",
                "path": self._websocket.url.path,
                "status": status,
                "seconds": round(time.monotonic() - scope.started, 4),
                **({"ended_by": scope.ended_by} if scope.ended_by else {}),
            },
        )


async def _within_deadline(sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(_SEND_DEADLINE_S):
            await sending
    except (TimeoutError, WebSocketDisconnect, RuntimeError) as error:
        # With a RuntimeError Starlette and uvicorn say that the socket has been closed meanwhile.
        raise _Gone from error
