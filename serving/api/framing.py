"""Chunks -> bytes on the wire: server-sent events ending in `[DONE]`, or JSON lines. One chunk, one write, no buffering."""

from collections.abc import AsyncIterator
from typing import Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.engine.interface import Chunks

Framing = Literal["sse", "jsonlines"]

JSON_LINES = "application/jsonlines"
_MEDIA_TYPES: dict[Framing, str] = {"sse": "text/event-stream", "jsonlines": JSON_LINES}


def framing_for(accept: str) -> Framing:
    """The framing that an `Accept` header asks for; server-sent events unless it names JSON lines."""
    return "jsonlines" if JSON_LINES in accept.lower() else "sse"


class ChunkResponse(StreamingResponse):
    """Streams `chunks` and closes them however it ends, so that a client that goes away frees its sequence at once."""

    def __init__(self, chunks: Chunks, framing: Framing) -> None:
        self._chunks = chunks
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_framed(chunks, framing), media_type=_MEDIA_TYPES[framing], headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._chunks.aclose()


async def _framed(chunks: Chunks, framing: Framing) -> AsyncIterator[bytes]:
    if framing == "jsonlines":
        async for chunk in chunks:
            yield f"{chunk}\n".encode()
        return
    async for chunk in chunks:
        yield f"data: {chunk}\n\n".encode()
    yield b"data: [DONE]\n\n"
