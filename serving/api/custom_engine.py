"""Between the event loop and a model's own code: that code runs on threads, bounded in number, and asks the engine from there.

Threads are daemons, since one that never returns must not hold up the process's end. A request that is over takes its questions with it.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from serving.api.answering import answer
from serving.engine.interface import Chunks, Engine
from serving.errors import EngineFailure, RequestError

_T = TypeVar("_T")


class UserCodeError(Exception):
    """`function` of the model's own code failed; `__cause__` is what it raised."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.function = function


class Threads:
    """Runs at most `limit` calls at once; further ones wait. A call that its caller gave up counts until it has returned."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """What `function` returns or raises, on a thread of its own, in this context."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()
        context = contextvars.copy_context()

        def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            self._free.release()
            if not done.done():
                set_outcome(outcome)

        def work() -> None:
            try:
                outcome = done.set_result, context.run(function, *arguments)
            except BaseException as error:  # on its way to the caller
                outcome = done.set_exception, error  # type: ignore[assignment]
            # When the loop is gone, so is the caller.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, *outcome)

        threading.Thread(target=work, name="custom-code", daemon=True).start()
        return await done


def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the user's function returns, awaited on this thread if it is asynchronous.

    Raises:
        RequestError: the engine refused what the function asked, and the function let that pass.
        UserCodeError: anything else that it raised, an attempt to exit included.
    """
    try:
        result = function(*arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except RequestError:
        raise
    except BaseException as error:
        raise UserCodeError(name) from error


class EngineHandle:
    """What user code asks the engine with, from any thread but the event loop's: `handle(body)` waits for the answer.

    A body is any that /invocations takes. The answer is its JSON object; with `stream: true` an iterator of the chunks'.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, request_id: str) -> None:
        self._engine = engine
        self._loop = loop
        self._request_id = request_id
        self._asked: list[concurrent.futures.Future[Any]] = []
        self._streams: list[Stream] = []
        self._is_closed = False

    def __call__(self, body: Mapping[str, Any]) -> Any:
        """The answer to `body`. Raises RequestError if the engine refuses it."""
        return self.submit(body).result()

    def submit(self, body: Mapping[str, Any]) -> "concurrent.futures.Future[Any]":
        """The answer to come: to ask several things at once, or with `asyncio.wrap_future` to await it."""
        if self._is_closed:
            raise RuntimeError("the request is over")
        if not isinstance(body, Mapping):
            raise TypeError(f"the model takes a dictionary, not {type(body).__name__}")
        # The engine tells requests apart by their ids.
        suffix = f"-{len(self._asked)}" if self._asked else ""
        future = asyncio.run_coroutine_threadsafe(self.ask(dict(body), self._request_id + suffix), self._loop)
        self._asked.append(future)
        if self._is_closed:
            # Meanwhile: the event loop does not wait for this thread.
            future.cancel()
        return future

    async def ask(self, body: dict[str, Any], request_id: str) -> Any:
        """The same on the event loop."""
        answered = await answer(self._engine, body, request_id)
        if isinstance(answered, bytes):
            return json.loads(answered)
        if self._is_closed:
            await answered.aclose()
            raise asyncio.CancelledError
        stream = Stream(answered, self._loop)
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        """Abort whatever is still being generated."""
        self._is_closed = True
        for future in self._asked:
            future.cancel()
        for stream in self._streams:
            await stream.chunks.aclose()


class Stream:
    """The chunks of a streamed answer, as an iterator for user code."""

    def __init__(self, chunks: Chunks, loop: asyncio.AbstractEventLoop) -> None:
        self.chunks = chunks
        self._loop = loop

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        text = asyncio.run_coroutine_threadsafe(next_text(self.chunks), self._loop).result()
        if text is None:
            raise StopIteration
        return chunk_of(text)


async def next_text(chunks: Chunks) -> str | None:
    """The next chunk's JSON text, None after the last."""
    return await anext(chunks, None)


def chunk_of(text: str) -> dict[str, Any]:
    """Raises EngineFailure if the chunk tells that the generation failed."""
    chunk: dict[str, Any] = json.loads(text)
    if "error" in chunk:
        raise EngineFailure(str(chunk["error"].get("message", "the generation failed")))
    return chunk


class Context:
    """The last argument of functions that take one more than the toolkit's. `engine` asks the engine, from a request's functions and
    model_warmup_fn."""

    def __init__(self, model_dir: str, engine: EngineHandle | None = None, request_id: str = "", headers: Mapping[str, str] | None = None):
        self.system_properties = {"model_dir": model_dir}
        self.engine = engine
        self.request_id = request_id
        self._headers = headers or {}

    def get_request_header(self, _index: int, key: str) -> str | None:
        """The header `key`, as the toolkit's context gives it."""
        return self._headers.get(key)
