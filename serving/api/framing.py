"""Answers -> bytes on the wire: JSON, server-sent events ending in `[DONE]`, JSON lines or bare text. One chunk, one write."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.api.negotiation import JSON_LINES_TYPES, Form
from serving.engine.interface import Chunks

logger = logging.getLogger("tokenport.api")

_MEDIA_TYPES: dict[Form, str] = {
    "json": "application/json",
    "sse": "text/event-stream",
    "jsonlines": JSON_LINES_TYPES[0],
    "text": "text/plain; charset=utf-8",
}


def whole_response(answer: bytes, form: Form) -> Response:
    """A whole answer, with its length and never in chunks: SageMaker's asynchronous inference takes no others."""
    if form == "jsonlines":
        answer += b"\n"
    elif form == "text":
        answer = _text_of(json.loads(answer)).encode()
    return Response(answer, media_type=_MEDIA_TYPES[form])


class ChunkResponse(StreamingResponse):
    """Streams `chunks` and closes them however it ends, so that a client that goes away frees its sequence at once."""

    def __init__(self, chunks: Chunks, form: Form) -> None:
        self._chunks = chunks
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_framed(chunks, form), media_type=_MEDIA_TYPES[form], headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _BrokenOffError:
            # Returning without the end of the response is how a server is told to break off the connection.
            logger.warning("a stream of bare text was broken off")
        finally:
            await self._chunks.aclose()


async def _framed(chunks: Chunks, form: Form) -> AsyncIterator[bytes]:
    if form == "jsonlines":
        async for chunk in chunks:
            yield f"{chunk}\n".encode()
    elif form == "text":
        async for chunk in chunks:
            if text := _text_of(json.loads(chunk)):
                yield text.encode()
    else:
        async for chunk in chunks:
            yield f"data: {chunk}\n\n".encode()
        yield b"data: [DONE]\n\n"


def _text_of(answer: dict[str, Any]) -> str:
    """The text in a whole answer or a chunk of any of the three forms.

    Raises:
        _BrokenOffError: it is an error, which bare text cannot tell: breaking off the response is the only honest end.
    """
    if "error" in answer:
        raise _BrokenOffError
    if "choices" not in answer:
        token = answer.get("token")
        return token["text"] if token else answer["generated_text"]
    choice = answer["choices"][0] if answer["choices"] else {}
    message = choice.get("message") or choice.get("delta") or {}
    return choice.get("text") or message.get("content") or ""


class _BrokenOffError(Exception):
    """The answer ended in an error that its form cannot tell."""
