"""A request through a model's own functions: bytes -> input_fn -> predict_fn or the engine -> output_fn -> bytes.

For a function that is not there the server does what it does anyway, or what the toolkit's decoders and encoders do for their types. Of a
stream output_fn gets each chunk. What fails is logged without what was said, and told without where.
"""

import asyncio
import contextlib
import io
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from sagemaker_inference import content_types, decoder, encoder
from sagemaker_inference.errors import BaseInferenceToolkitError, UnsupportedFormatError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.api.custom_engine import Context, EngineHandle, Stream, Threads, UserCodeError, call, chunk_of, next_text
from serving.api.framing import ChunkResponse
from serving.api.negotiation import negotiate
from serving.api.schemas import content_type_of, read_json_object
from serving.engine import work
from serving.engine.interface import Chunks, Engine
from serving.errors import CustomCodeFailure, InvalidRequest, NotAcceptable, RequestError, UnsupportedMediaType

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
        if not isinstance(response, _RawStream | ChunkResponse):
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
                await this.run("transform_fn", model, await _data(this.request), this.content_type, this.accept), this
            )
        if "input_fn" in self._functions:
            body = await this.run("input_fn", await _data(this.request), this.content_type)
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
        return await self._threads.run(_encoded, prediction, this.accept)

    async def _decoded(self, this: "_Call") -> Any:
        """What the server or the toolkit reads: a JSON object, or an array."""
        if "predict_fn" not in self._functions or this.content_type not in _DECODED_TYPES:
            return await read_json_object(this.request)
        return await self._threads.run(_array, await _data(this.request), this.content_type)

    async def _streamed(self, prediction: Iterator[Any], this: "_Call") -> Response:
        items = _chunks_of(prediction) if isinstance(prediction, Stream) else self._items_of(prediction)
        if "output_fn" in self._functions:
            items = self._outputs_of(items, this)
            return await self._raw(items, this)
        form, _ = negotiate(this.request.headers.get("accept", ""), True)
        chunks = prediction.chunks if isinstance(prediction, Stream) else _JsonChunks(await anext(items, None), items)
        return ChunkResponse(_Closing(chunks, this.handle), form)

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
        data, content_type = _typed(result, this.accept)
        return Response(data, media_type=content_type)

    async def _raw(self, items: AsyncIterator[Any], this: "_Call") -> Response:
        # The first item is waited for, so that what fails before it still gets its status.
        first = await anext(items, None)
        data, content_type = _typed("" if first is None else first, this.accept)
        limits = work.current_scope.get()

        async def parts() -> AsyncIterator[bytes]:
            yield data
            while (item := await _within(anext(items, _END), limits, limits.stream_deadline_s if limits else None)) is not _END:
                yield _typed(item, this.accept)[0]

        return _RawStream(parts(), content_type, this.handle, self._failed)

    def _failed(self, error: UserCodeError) -> Response:
        cause = error.__cause__
        extra: dict[str, Any] = {"function": error.function, "error": type(cause).__name__, "traceback": _frames(cause)}
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


class _RawStream(StreamingResponse):
    """Bytes as the user's code gives them. What fails half way breaks off the response: no form of telling it is known here."""

    def __init__(self, parts: AsyncIterator[bytes], content_type: str, handle: EngineHandle, failed: Callable[[UserCodeError], object]):
        self._handle = handle
        self._failed = failed
        super().__init__(parts, media_type=content_type, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (UserCodeError, RequestError) as error:
            if isinstance(error, UserCodeError):
                with contextlib.suppress(RequestError):
                    self._failed(error)
            logger.warning("a stream of custom code was broken off")
        finally:
            await self._handle.close()


class _JsonChunks:
    """A generator's items as chunks: JSON objects, framed as the server frames its own."""

    def __init__(self, first: Any, items: AsyncIterator[Any]) -> None:
        self._first = first
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        item, self._first = self._first, None
        try:
            return str(encoder.encode(item if item is not None else await anext(self._items), content_types.JSON))
        except RequestError as error:
            return json.dumps(error.body())
        except (UserCodeError, TypeError) as error:
            cause = error.__cause__ or error
            logger.error("custom code failed", extra={"function": "predict_fn", "error": type(cause).__name__, "traceback": _frames(cause)})
            return json.dumps(CustomCodeFailure(f"the model's predict_fn failed with {type(cause).__name__}").body())

    async def aclose(self) -> None:
        pass


class _Closing:
    """Chunks that end their request's other questions with them."""

    def __init__(self, chunks: Chunks, handle: EngineHandle) -> None:
        self._chunks = chunks
        self._handle = handle

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._handle.close()
        await self._chunks.aclose()


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


async def _data(request: Request) -> bytes | str:
    """The body as the toolkit gives it: text where the type is text by its book."""
    raw = await request.body()
    if content_type_of(request) not in content_types.UTF8_TYPES:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error


def _array(data: bytes | str, content_type: str) -> Any:
    try:
        if content_type == content_types.NPY:
            # The toolkit's decoder would unpickle what a client sends.
            return numpy.load(io.BytesIO(data if isinstance(data, bytes) else data.encode()), allow_pickle=False)
        return decoder.decode(data, content_type)
    except Exception as error:
        raise InvalidRequest(f"the body is no {content_type}: {type(error).__name__}") from error


def _encoded(prediction: Any, accept: str) -> Response:
    for item in accept.split(","):
        media_type = item.partition(";")[0].strip().lower()
        media_type = content_types.JSON if media_type in (content_types.ANY, "application/*") else media_type
        if media_type in encoder.SUPPORTED_CONTENT_TYPES:
            try:
                return Response(encoder.encode(prediction, media_type), media_type=media_type)
            except Exception as error:
                raise UserCodeError("predict_fn") from error
    known = ", ".join(sorted(encoder.SUPPORTED_CONTENT_TYPES))
    raise NotAcceptable(f"Accept: {accept[:200]!r} is not supported: accept {known}")


def _typed(result: Any, accept: str) -> tuple[bytes, str]:
    content_type = accept.partition(",")[0].partition(";")[0].strip()
    if isinstance(result, tuple) and len(result) == 2:
        result, content_type = result
    if isinstance(result, dict | list):
        result = encoder.encode(result, content_types.JSON)
    if isinstance(result, str):
        result = result.encode()
    if not isinstance(result, bytes | bytearray):
        raise CustomCodeFailure(
            f"the model's own code returned {type(result).__name__} as the answer: return text, bytes or an object of JSON"
        )
    return bytes(result), str(content_type)


def _frames(error: BaseException | None) -> str:
    """Where it was raised, and what that came from, without any message: those may hold what a request said."""
    told: list[str] = []
    while error is not None:
        told = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n", *told]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(told)
