"""A model of Bedrock as a model elsewhere, through Converse and ConverseStream.

One field names it: a model id, an inference profile, a provisioned throughput, a prompt router, an imported model. What AWS does with each
is the same call.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from pydantic import ValidationError

from serving.aws.bedrock_answer import ChunkWriter, completion
from serving.aws.bedrock_parameters import converse_parameters
from serving.aws.bedrock_request import ChatRequest, ToolMessage, without_nulls
from serving.aws.errors import stream_error
from serving.aws.event_stream import EventStreamParser
from serving.aws.runtime import Runtime
from serving.engine.interface import Chunks, Kind
from serving.errors import TierFailure
from serving.remote_chunks import RemoteChunks
from serving.remote_errors import deadline_error
from serving.strict import invalid_request

_NOT_HONOURED = frozenset(
    ("extra_forbidden", "literal_error", "union_tag_invalid", "less_than_equal", "string_pattern_mismatch", "too_long")
)
"""pydantic's names for what OpenAI has and Converse has not. What is wrong by OpenAI's own rules is the caller's mistake."""


class BedrockModel:
    """A `RemoteModel`. `model`: what Converse takes as `modelId`; answers name it as their `model`. `who` begins the sentences of its
    errors.

    Raises:
        StartError: botocore has no client for it, for want of a region for example.
    """

    def __init__(self, model: str, *, region: str | None = None, endpoint_url: str | None = None, who: str | None = None) -> None:
        self._model = model
        self._who = who or f"Bedrock model {model}"
        self._runtime = Runtime("bedrock-runtime", self._who, region, endpoint_url)

    @property
    def kinds(self) -> frozenset[Kind]:
        """See `RemoteModel`."""
        return frozenset(("chat",))

    def cannot_honour(self, kind: Kind, body: Mapping[str, Any]) -> str | None:
        """See `RemoteModel`."""
        try:
            request = _request(body)
        except ValidationError as error:
            is_of_bedrock = any(detail["type"] in _NOT_HONOURED for detail in error.errors())
            return invalid_request(error, body).param if is_of_bedrock else None
        # Converse refuses the results of tools where it is told of none.
        has_results = any(isinstance(message, ToolMessage) for message in request.messages)
        return "tool_choice" if request.tool_choice == "none" and has_results else None

    async def generate(self, kind: Kind, body: Mapping[str, Any], request_id: str, *, deadline_s: float) -> bytes | Chunks:
        """See `RemoteModel`."""
        ends_at = asyncio.get_running_loop().time() + deadline_s
        try:
            request = _request(body)
        except ValidationError as error:
            raise invalid_request(error, body) from error
        parameters = converse_parameters(request, self._model)
        if request.stream:
            return await RemoteChunks(self._who, self._texts(parameters, request_id), ends_at).hold_first()
        try:
            async with asyncio.timeout_at(ends_at), self._runtime.call("converse", parameters) as response:
                answer = _json(self._who, await response.read())
        except TimeoutError as error:
            raise deadline_error(self._who) from error
        return completion(self._who, self._model, request_id, answer)

    async def close(self) -> None:
        """See `RemoteModel`."""
        await self._runtime.close()

    async def _texts(self, parameters: Mapping[str, Any], request_id: str) -> AsyncGenerator[str, None]:
        parser, writer = EventStreamParser(self._who), ChunkWriter(self._who, self._model, request_id)
        async with self._runtime.call("converse_stream", parameters) as response:
            # To the end: usage comes after the message has stopped.
            async for read in response.content.iter_any():
                for event in parser.feed(read):
                    if event.is_exception:
                        raise stream_error(self._who, event.name, event.payload)
                    if (text := writer.take(event.name, _json(self._who, event.payload))) is not None:
                        yield text
        if not writer.is_finished:
            raise TierFailure(f"{self._who} ended its stream in the middle of the answer", reason="broken")


def _request(body: Mapping[str, Any]) -> ChatRequest:
    return ChatRequest.model_validate(without_nulls(dict(body)))


def _json(who: str, payload: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise TierFailure(f"{who} sent something else than a JSON object", reason="failed")
    return fields
