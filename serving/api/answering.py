"""A body in any of the three forms -> the engine -> JSON, whole or in chunks. Knows no HTTP, so that batches and sockets answer alike."""

import json
from typing import Any

from serving.api.adapter_choice import choose
from serving.api.schemas import form_of
from serving.api.text_generation import TextGenerationChunks, parse_text_generation, to_answer, to_completion
from serving.engine.interface import Chunks, Engine


async def answer(engine: Engine, body: dict[str, Any], request_id: str) -> bytes | Chunks:
    """Answer one body: JSON, or with `stream: true` chunks of it. Cancelling the call, or closing the chunks, aborts it.

    Raises:
        RequestError: the body is wrong, or the engine refuses it or fails before the first chunk.
    """
    body = choose(engine, body)
    form = form_of(body)
    if form == "inputs":
        return await _text_generation(engine, body, request_id)
    return await engine.generate("chat" if form == "messages" else "completion", body, request_id)


async def _text_generation(engine: Engine, body: dict[str, Any], request_id: str) -> bytes | Chunks:
    asked = parse_text_generation(body)
    completion = await engine.generate("completion", to_completion(asked), request_id)
    if isinstance(completion, bytes):
        return json.dumps(to_answer(completion, asked), ensure_ascii=False).encode()
    return TextGenerationChunks(completion)
