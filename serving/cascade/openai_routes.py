"""The engine's OpenAI routes with the cascade in them: a request for one of its models is answered by it, framed as vLLM frames it, and its
models are in the list. Everything else goes to vLLM's app as it came.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.engine.interface import Chunks, Engine, Kind
from serving.errors import RequestError

_KINDS: Mapping[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
_MODELS_PATH = "/v1/models"
_REQUEST_ID = "x-request-id"


class OpenAIRoutes:
    """An ASGI app around that of `inner`. `engine` answers for `names`, which are the cascade's models."""

    def __init__(self, engine: Engine, inner: Callable[[], ASGIApp], names: Collection[str]) -> None:
        self._engine = engine
        self._inner = inner
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope.get("path", ""), scope.get("method")
        if method == "POST" and path in _KINDS:
            request = Request(scope, receive)
            raw = await request.body()
            body = _object(raw)
            if body.get("model") in self._names:
                response = await self._answer(request, _KINDS[path], body)
                await response(scope, receive, send)
            else:
                await self._inner()(scope, _once(raw, receive), send)
        elif method == "GET" and path == _MODELS_PATH:
            await self._list_models(scope, receive, send)
        else:
            await self._inner()(scope, receive, send)

    async def _answer(self, request: Request, kind: Kind, body: dict[str, Any]) -> Response:
        answering = asyncio.ensure_future(self._engine.generate(kind, body, request.headers[_REQUEST_ID]))
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                # Nobody is left to read this.
                return Response(status_code=499)
            answer = answering.result()
        except RequestError as error:
            return JSONResponse(error.body(), status_code=error.status, headers=error.headers)
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        return Response(answer, media_type="application/json") if isinstance(answer, bytes) else _Events(answer)

    async def _list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """vLLM's list, and the cascade's models behind it: entries like that of the base model."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._inner()(scope, receive, keep)
        raw = b"".join(message.get("body", b"") for message in messages)
        listed = _object(raw)
        if isinstance(listed.get("data"), list) and listed["data"]:
            base = listed["data"][0]
            listed["data"] += [{"id": name, "object": "model", "created": base["created"], "owned_by": "tokenport"} for name in self._names]
            raw = json.dumps(listed).encode()
        await Response(raw, status_code=messages[0]["status"], media_type="application/json")(scope, receive, send)


class _Events(StreamingResponse):
    """Server-sent events. However it ends, the chunks are closed, so that a client that goes away frees its sequence at once."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        super().__init__(_framed(chunks), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._chunks.aclose()


async def _framed(chunks: Chunks) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield f"data: {chunk}\n\n"
    yield "data: [DONE]\n\n"


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _once(raw: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first, then what `receive` gives."""
    bodies = [raw]

    async def replayed() -> Message:
        return {"type": "http.request", "body": bodies.pop(), "more_body": False} if bodies else await receive()

    return replayed


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` is; empty for anything else, which vLLM answers in its own words."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
