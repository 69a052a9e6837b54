"""A SageMaker endpoint, or one of its inference components, as a model elsewhere: OpenAI bodies to what answers `/invocations` there."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from serving.aws.errors import stream_error
from serving.aws.event_stream import EventStreamParser
from serving.aws.runtime import Runtime
from serving.engine.interface import Chunks, Kind
from serving.remote_chunks import RemoteChunks, checked_whole, needs_token_ids, openai_chunks
from serving.remote_errors import deadline_error

_PART = "PayloadPart"


class SageMakerModel:
    """A `RemoteModel`. `model` is the name that the container knows, None for the only one it serves. `who` begins the sentences of its
    errors.

    Raises:
        StartError: botocore has no client for it, for want of a region for example.
    """

    def __init__(
        self,
        endpoint: str,
        component: str | None = None,
        *,
        model: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        who: str | None = None,
    ) -> None:
        self._who = who or f"SageMaker endpoint {endpoint}" + (f", component {component}," if component else "")
        self._model = model
        self._parameters = {"EndpointName": endpoint, "ContentType": "application/json"}
        if component is not None:
            self._parameters["InferenceComponentName"] = component
        self._runtime = Runtime("sagemaker-runtime", self._who, region, endpoint_url)

    @property
    def kinds(self) -> frozenset[Kind]:
        """See `RemoteModel`."""
        return frozenset(("chat", "completion"))

    def cannot_honour(self, kind: Kind, body: Mapping[str, Any]) -> str | None:
        """See `RemoteModel`. The body goes there as it is; the container says itself what it has nothing for."""
        return None

    async def generate(self, kind: Kind, body: Mapping[str, Any], request_id: str, *, deadline_s: float) -> bytes | Chunks:
        """See `RemoteModel`."""
        ends_at = asyncio.get_running_loop().time() + deadline_s
        parameters = {**self._parameters, "InferenceId": request_id, "Body": self._body(body)}
        if body.get("stream"):
            texts = openai_chunks(self._who, self._reads(parameters), needs_token_ids=needs_token_ids(body))
            return await RemoteChunks(self._who, texts, ends_at).hold_first()
        try:
            async with asyncio.timeout_at(ends_at), self._runtime.call("invoke_endpoint", parameters) as response:
                return checked_whole(self._who, await response.read(), needs_token_ids=needs_token_ids(body))
        except TimeoutError as error:
            raise deadline_error(self._who) from error

    async def close(self) -> None:
        """See `RemoteModel`."""
        await self._runtime.close()

    def _body(self, body: Mapping[str, Any]) -> bytes:
        sent = {name: value for name, value in body.items() if name != "model"}
        if self._model is not None:
            sent["model"] = self._model
        return json.dumps(sent).encode()

    async def _reads(self, parameters: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        parser = EventStreamParser(self._who)
        async with self._runtime.call("invoke_endpoint_with_response_stream", parameters) as response:
            async for read in response.content.iter_any():
                for event in parser.feed(read):
                    if event.is_exception:
                        raise stream_error(self._who, event.name, event.payload)
                    if event.name == _PART:
                        yield event.payload
