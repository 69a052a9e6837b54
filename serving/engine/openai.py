"""vLLM's own OpenAI layer: its routes as an app to mount, its handlers for bodies that came by another road, its errors as ours.

Nothing of the OpenAI protocol is written here. A body is checked for unknown fields, validated by vLLM's request class and answered by
vLLM's handler, exactly as on `/v1`; server-sent events are unwrapped to their JSON.
"""

import json
from argparse import Namespace
from collections.abc import AsyncGenerator
from typing import Any, Self

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.routers import register_api_routers
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
from vllm.v1.engine.exceptions import EngineDeadError

from serving.engine.interface import Chunks, Kind
from serving.errors import EngineFailure, InvalidRequest, NotReady, RequestError, UnknownModel
from serving.strict import invalid_request, refuse_unknown_fields

_PREFIX = "data: "
_DONE = "[DONE]"
_ALIASES = frozenset({"reasoning_content"})  # vLLM takes it for `reasoning`


class OpenAILayer:
    """vLLM's OpenAI server without its socket."""

    def __init__(self, client: EngineClient, app: FastAPI) -> None:
        self._client = client
        self.app = app

    @classmethod
    async def create(cls, client: EngineClient, args: Namespace) -> "OpenAILayer":
        """Build the routes that the model's tasks allow.

        The steps of vLLM's `build_app` without its SageMaker layer: `/ping` and `/invocations` are ours, and that layer would put two more
        middlewares into every request and erase `model` on the way.
        """
        tasks = await client.get_supported_tasks()
        app = FastAPI(openapi_url=None)
        app.state.args = args
        register_api_routers(args, app, tasks, client.model_config)
        init_exception_handler(app)
        init_entrypoints_middleware(args, app, tasks)
        await init_app_state(client, app.state, args, tasks)
        return cls(client, app)

    @property
    def model_names(self) -> list[str]:
        """Served names, then loaded LoRA adapters."""
        models = self.app.state.openai_serving_models
        return [model.name for model in models.base_model_paths] + list(models.lora_requests)

    async def generate(self, kind: Kind, body: dict[str, Any], request_id: str) -> bytes | Chunks:
        """See `Engine.generate`."""
        request_class: type[BaseModel] = ChatCompletionRequest if kind == "chat" else CompletionRequest
        refuse_unknown_fields(request_class, body, aliases=_ALIASES)
        try:
            request = request_class.model_validate({"request_id": request_id, **body})
            if kind == "chat":
                answer = await self.app.state.openai_serving_chat.create_chat_completion(request)
            else:
                answer = await self.app.state.openai_serving_completion.create_completion(request)
        except ValidationError as error:
            raise invalid_request(error, body) from error
        except EngineDeadError as error:
            raise NotReady("the engine has died") from error
        except Exception as error:
            raise _request_error(create_error_response(error)) from error
        if isinstance(answer, ErrorResponse):
            raise _request_error(answer)
        if isinstance(answer, BaseModel):
            return answer.model_dump_json().encode()
        chunks = _Chunks(answer)
        await chunks.check_first()
        return chunks


class _Chunks:
    """The JSON texts of vLLM's server-sent events, one event of which can be looked at before it is taken."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        self._events = events
        self._peeked: str | None = None

    async def check_first(self) -> None:
        """Wait for the first chunk, so that what fails before it still gets its own status instead of an error inside a 200."""
        try:
            self._peeked = await anext(self, None)
        except BaseException:
            await self.aclose()
            raise
        if self._peeked is not None and self._peeked.startswith('{"error"'):
            await self.aclose()
            raise _request_error(ErrorResponse.model_validate(json.loads(self._peeked)))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._peeked is not None:
            chunk, self._peeked = self._peeked, None
            return chunk
        text = (await anext(self._events)).removeprefix(_PREFIX).rstrip("\n")
        if text == _DONE:
            raise StopAsyncIteration
        return text

    async def aclose(self) -> None:
        """Abort the request. Closing vLLM's generator is what aborts the sequence, so it must not wait for the garbage collector."""
        await self._events.aclose()


def _request_error(response: ErrorResponse) -> RequestError:
    info = response.error
    classes: dict[int, type[RequestError]] = {400: InvalidRequest, 422: InvalidRequest, 404: UnknownModel, 503: NotReady}
    fallback = InvalidRequest if 400 <= info.code < 500 else EngineFailure
    return classes.get(info.code, fallback)(info.message, param=info.param)
