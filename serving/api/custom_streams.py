"""Streams of a model's own functions: bytes as they come, items as JSON chunks, and chunks that close more than themselves."""

import contextlib
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from sagemaker_inference import content_types, encoder
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.api.custom_engine import EngineHandle, UserCodeError
from serving.engine.interface import Chunks
from serving.errors import CustomCodeFailure, RequestError

logger = logging.getLogger("tokenport.custom_code")


class RawStream(StreamingResponse):
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


class JsonChunks:
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
            logger.error(
                "custom code failed", extra={"function": "predict_fn", "error": type(cause).__name__, "traceback": frames_of(cause)}
            )
            return json.dumps(CustomCodeFailure(f"the model's predict_fn failed with {type(cause).__name__}").body())

    async def aclose(self) -> None:
        pass


class Closing:
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


def frames_of(error: BaseException | None) -> str:
    """Where it was raised, and what that came from, without any message: those may hold what a request said."""
    told: list[str] = []
    while error is not None:
        told = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n", *told]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(told)
