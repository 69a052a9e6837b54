"""`POST /invocations`: read -> session -> answer -> framed response. A client that goes away stops its generation."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from fastapi.responses import Response

from serving.api.answering import answer
from serving.api.batches import answer_batch, refuse_other_than_lines
from serving.api.framing import ChunkResponse, whole_response
from serving.api.negotiation import JSON_LINES_TYPES, negotiate
from serving.api.schemas import content_type_of, read_json_object
from serving.api.sessions import SESSION_HEADER
from serving.errors import InvalidRequest

if TYPE_CHECKING:
    from serving.api.custom_calls import CustomCalls

_T = TypeVar("_T")
_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it, but the access log shows it


async def invocations(request: Request) -> Response:
    """Answer one invocation in any of the three forms, or a batch of them."""
    if request.app.state.custom_code is not None:
        return await _custom(request, request.app.state.custom_code.calls)
    is_batch = content_type_of(request) in JSON_LINES_TYPES
    body = {} if is_batch else await read_json_object(request)
    session = request.app.state.sessions.enter(request.headers.get(SESSION_HEADER), body)
    if session.is_all and not is_batch:
        return session.response()
    response = await (_batch(request) if is_batch else _single(request, body))
    response.headers.update(session.conclude())
    return response


async def _custom(request: Request, calls: "CustomCalls") -> Response:
    """The model's own functions read the body, so of sessions only the header is known."""
    await request.body()
    session = request.app.state.sessions.enter(request.headers.get(SESSION_HEADER), {})
    answered = await unless_gone(request, calls.answer(request))
    response = answered if isinstance(answered, Response) else await _single(request, answered)
    response.headers.update(session.conclude())
    return response


async def _single(request: Request, body: dict[str, Any]) -> Response:
    form, is_stream = negotiate(request.headers.get("accept", ""), body.get("stream"))
    if form == "text" and body.get("n") not in (None, 1):
        raise InvalidRequest("n: text/plain has room for one choice; accept application/json for more", param="n")
    if is_stream:
        body["stream"] = True
    answered = await unless_gone(request, answer(request.app.state.engine, body, request.state.request_id))
    if isinstance(answered, Response):
        return answered
    return whole_response(answered, form) if isinstance(answered, bytes) else ChunkResponse(answered, form)


async def _batch(request: Request) -> Response:
    refuse_other_than_lines(request.headers.get("accept", ""))
    results = await unless_gone(request, answer_batch(request.app.state.engine, await request.body(), request.state.request_id))
    return results if isinstance(results, Response) else Response(results, media_type=JSON_LINES_TYPES[0])


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
