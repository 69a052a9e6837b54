"""`POST /invocations`: read -> answer -> framed response. A client that goes away stops its generation."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response

from serving.api.answering import answer
from serving.api.framing import ChunkResponse, framing_for
from serving.api.schemas import read_json_object

_T = TypeVar("_T")
_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it, but the access log shows it


async def invocations(request: Request) -> Response:
    """Answer one invocation in any of the three forms."""
    body = await read_json_object(request)
    answered = await unless_gone(request, answer(request.app.state.engine, body, request.state.request_id))
    if isinstance(answered, Response):
        return answered
    if isinstance(answered, bytes):
        return Response(answered, media_type="application/json")
    return ChunkResponse(answered, framing_for(request.headers.get("accept", "")))


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T | Response:
    """Wait for `work`, or cancel it when the client disconnects: nobody is left to read the answer. The body must have been read."""
    answering = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    finally:
        leaving.cancel()
        if not answering.done():
            answering.cancel()
            # Whatever it ends with, nobody is left to hear it.
            await asyncio.gather(answering, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
