"""`POST /invocations`: read -> which form -> the engine -> framed answer. A client that goes away stops its generation."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from serving.api.framing import ChunkResponse, framing_for
from serving.api.schemas import form_of, read_json_object
from serving.api.text_generation import TextGenerationChunks, parse_text_generation, to_answer, to_completion
from serving.engine.interface import Chunks, Engine

_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it, but the access log shows it


async def invocations(request: Request) -> Response:
    """Answer one invocation in any of the three forms."""
    body = await read_json_object(request)
    form = form_of(body)
    if form == "inputs":
        return await _text_generation(request, body)
    answer = await _generate(request, "chat" if form == "messages" else "completion", body)
    if isinstance(answer, bytes):
        return Response(answer, media_type="application/json")
    return answer if isinstance(answer, Response) else _streamed(request, answer)


async def _text_generation(request: Request, body: dict[str, Any]) -> Response:
    asked = parse_text_generation(body)
    answer = await _generate(request, "completion", to_completion(asked))
    if isinstance(answer, bytes):
        return Response(json.dumps(to_answer(answer, asked), ensure_ascii=False), media_type="application/json")
    return answer if isinstance(answer, Response) else _streamed(request, TextGenerationChunks(answer))


async def _generate(request: Request, kind: Any, body: dict[str, Any]) -> bytes | Chunks | Response:
    engine: Engine = request.app.state.engine
    return await _unless_gone(request, engine.generate(kind, body, request.state.request_id))


def _streamed(request: Request, chunks: Chunks) -> Response:
    return ChunkResponse(chunks, framing_for(request.headers.get("accept", "")))


async def _unless_gone(request: Request, work: Awaitable[bytes | Chunks]) -> bytes | Chunks | Response:
    """Wait for `work`, or cancel it when the client disconnects: nobody is left to read the answer."""
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
