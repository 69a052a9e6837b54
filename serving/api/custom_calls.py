"""A request through a model's own functions: bytes -> input_fn -> predict_fn or the engine -> output_fn -> bytes.

For a function that is not there the server does what it does anyway, or what the toolkit's decoders and encoders do for their types. Of a
stream output_fn gets each chunk. What fails is logged without what was said, and told without where.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from sagemaker_inference import content_types
from sagemaker_inference.errors import BaseInferenceToolkitError, UnsupportedFormatError

from serving.api.custom_bodies import array_of, body_of, encoded, typed
from serving.api.custom_engine import Context, EngineHandle, Stream, Threads, UserCodeError, call, chunk_of, next_text
from serving.api.custom_streams import Closing, JsonChunks, RawStream, frames_of
from serving.api.framing import ChunkResponse
from serving.api.negotiation import negotiate
from serving.api.schemas import content_type_of, read_json_object
from serving.engine import work
from serving.engine.interface import Engine
from serving.errors import CustomCodeFailure, NotAcceptable, UnsupportedMediaType

logger = logging.getLogger("tokenport.custom_code")

_T = TypeVar("_T")
Functions = Mapping[str, tuple[Callable[..., Any], bool]]
"""The user's functions by name, each with whether it takes the context."""

_GRACE_S = 2.0
"""What the engine ends early at the deadline still has to pass through output_fn: SageMaker's 60 s are 5 s later."""
_DECODED_TYPES = (content_types.CSV, content_types.NPY, content_types.NPZ)
_END = object()


class CustomCalls:
    """Answers invocations with the user's functions. `model` is what model_fn returned, None for the engine."""

    def __init__(self, functions: Functions, model: Any, engine: Engine, threads: Threads, model_dir: str, *, log_messages: bool) -> None:
        self._functions = functions
        self._model = model
        self._engine = engine
        self._threads = threads
        self._model_dir = model_dir
        self._log_messages = log_messages

    async def answer(self, request: Request) -> Response | dict[str, Any]:
        """The response; or, where input_fn is all there is, the body that the server is to answer as it does any. The request's body must
        have been read.

        Raises:
            RequestError: the request or what the code asked of the engine is wrong, or the code failed.
        """
        handle = EngineHandle(self._engine, asyncio.get_running_loop(), request.state.request_id)
        call = _Call(self, request, handle)
        limits = work.current_scope.get()
        try:
            response = await _within(self._respond(call), limits, limits.deadline_s if limits else None)
        except BaseException as error:
            await handle.close()
            if isinstance(error, UserCodeError):
                return self._failed(error)
            raise
        if not isinstance(response, RawStream | ChunkResponse):
            await handle.close()
        return response

    async def run(self, name: str, context: Context, *arguments: Any) -> Any:
        """Call the function `name` on a thread."""
        function, takes_context = self._functions[name]
        return await self._threads.run(call, name, function, *arguments, *((context,) if takes_context else ()))

    async def warm_up(self) -> None:
        """Call model_warmup_fn. Raises UserCodeError or RequestError."""
        handle = EngineHandle(self._engine, asyncio.get_running_loop(), "tokenport-warm-up")
        context = Context(self._model_dir, handle)
        try:
            await self.run("model_warmup_fn", context, self._model_dir, handle if self._model is None else self._model)
        finally:
            await handle.close()

    async def _respond(self, this: "_Call") -> Response | dict[str, Any]:
        model = this.handle if self._model is None else self._model
        if "transform_fn" in self._functions:
            return await self._written(
                await this.run("transform_fn", model, await body_of(this.request), this.content_type, this.accept), this
            )
        if "input_fn" in self._functions:
            body = await this.run("input_fn", await body_of(this.request), this.content_type)
        else:
            body = await self._decoded(this)
        if "predict_fn" in self._functions:
            prediction = await this.run("predict_fn", body, model)
        else:
            if not isinstance(body, dict):
                raise CustomCodeFailure(
                    f"input_fn returned {type(body).__name__}: without a predict_fn it must return a body, a dictionary"
                )
            if "output_fn" not in self._functions:
                return body
            prediction = await this.handle.ask(body, this.request.state.request_id)
        if isinstance(prediction, Iterator):
            return await self._streamed(prediction, this)
        if "output_fn" in self._functions:
            return await self._written(await this.run("output_fn", prediction, this.accept), this)
        return await self._threads.run(encoded, prediction, this.accept)

    async def _decoded(self, this: "_Call") -> Any:
        """What the server or the toolkit reads: a JSON object, or an array."""
        if "predict_fn" not in self._functions or this.content_type not in _DECODED_TYPES:
            return await read_json_object(this.request)
        return await self._threads.run(array_of, await body_of(this.request), this.content_type)

    async def _streamed(self, prediction: Iterator[Any], this: "_Call") -> Response:
        items = _chunks_of(prediction) if isinstance(prediction, Stream) else self._items_of(prediction)
        if "output_fn" in self._functions:
            items = self._outputs_of(items, this)
            return await self._raw(items, this)
        form, _ = negotiate(this.request.headers.get("accept", ""), True)
        chunks = prediction.chunks if isinstance(prediction, Stream) else JsonChunks(await anext(items, None), items)
        return ChunkResponse(Closing(chunks, this.handle), form)

    async def _items_of(self, prediction: Iterator[Any]) -> AsyncIterator[Any]:
        while (item := await self._threads.run(call, "predict_fn", next, prediction, _END)) is not _END:
            yield item

    async def _outputs_of(self, items: AsyncIterator[Any], this: "_Call") -> AsyncIterator[Any]:
        async for item in items:
            yield await this.run("output_fn", item, this.accept)

    async def _written(self, result: Any, this: "_Call") -> Response:
        """What output_fn or transform_fn returned: data, or data and its content type."""
        if isinstance(result, Iterator):
            return await self._raw(self._items_of(result), this)
        data, content_type = typed(result, this.accept)
        return Response(data, media_type=content_type)

    async def _raw(self, items: AsyncIterator[Any], this: "_Call") -> Response:
        # The first item is waited for, so that what fails before it still gets its status.
        first = await anext(items, None)
        data, content_type = typed("" if first is None else first, this.accept)
        limits = work.current_scope.get()

        async def parts() -> AsyncIterator[bytes]:
            yield data
            while (item := await _within(anext(items, _END), limits, limits.stream_deadline_s if limits else None)) is not _END:
                yield typed(item, this.accept)[0]

        return RawStream(parts(), content_type, this.handle, self._failed)

    def _failed(self, error: UserCodeError) -> Response:
        cause = error.__cause__
        extra: dict[str, Any] = {"function": error.function, "error": type(cause).__name__, "traceback": frames_of(cause)}
        if self._log_messages:
            extra["error_message"] = str(cause)
        logger.error("custom code failed", extra=extra)
        if isinstance(cause, BaseInferenceToolkitError) and 400 <= int(cause.status_code) <= 599:
            told = {"message": str(cause.message), "type": type(cause).__name__, "param": None, "code": int(cause.status_code)}
            return JSONResponse({"error": told}, status_code=int(cause.status_code))
        if isinstance(cause, UnsupportedFormatError):
            if error.function == "output_fn":
                raise NotAcceptable("the model's output_fn does not write what Accept asks for") from error
            raise UnsupportedMediaType(f"the model's {error.function} does not read this content type") from error
        raise CustomCodeFailure(
            f"the model's {error.function} failed with {type(cause).__name__}; the server's log has the details under this request's id"
        ) from error


class _Call:
    """One request on its way through the functions."""

    def __init__(self, calls: CustomCalls, request: Request, handle: EngineHandle) -> None:
        self._calls = calls
        self.request = request
        self.handle = handle
        self.content_type = content_type_of(request)
        accept = request.headers.get("accept", "")
        self.accept = content_types.JSON if accept in ("", content_types.ANY) else accept
        self._context = Context(calls._model_dir, handle, request.state.request_id, request.headers)

    async def run(self, name: str, *arguments: Any) -> Any:
        return await self._calls.run(name, self._context, *arguments)


async def _chunks_of(stream: Stream) -> AsyncIterator[dict[str, Any]]:
    while (text := await next_text(stream.chunks)) is not None:
        yield chunk_of(text)


async def _within(step: Awaitable[_T], limits: work.Scope | None, limit_s: float | None) -> _T:
    if limits is None or limit_s is None:
        return await step
    try:
        return await asyncio.wait_for(step, max(0.0, limits.started + limit_s + _GRACE_S - time.monotonic()))
    except TimeoutError:
        raise CustomCodeFailure(f"the model's own code did not answer within {limit_s:g} s") from None
