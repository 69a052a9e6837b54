"""The streamed answer of a model elsewhere: nothing is given out before it says something, and it ends with a word in every case.

Before its first word a failure is raised, so that another model may be asked; after it, it becomes the last chunk, with the key `error`.
Knows nothing of how the bytes come here.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self, TypeGuard

from serving.errors import RequestError, TierFailure
from serving.remote_errors import deadline_error, status_error
from serving.sse import ChunkParser

_UNTOLD_STATUS = 500


class RemoteChunks:
    """`Chunks` of `texts`, which is closed when they end, however they do. `ends_at`: the deadline in the event loop's time."""

    def __init__(self, who: str, texts: AsyncGenerator[str, None], ends_at: float) -> None:
        self._who = who
        self._texts = texts
        self._ends_at = ends_at
        self._held: deque[str] = deque()
        self._is_over = False

    async def hold_first(self) -> Self:
        """Wait until it has said something.

        Raises:
            RequestError: it failed before.
        """
        try:
            async with asyncio.timeout_at(self._ends_at):
                async for text in self._texts:
                    self._held.append(text)
                    if _says_something(json.loads(text)):
                        break
        except TimeoutError as error:
            await self.aclose()
            raise deadline_error(self._who) from error
        except BaseException:
            await self.aclose()
            raise
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._held:
            return self._held.popleft()
        if self._is_over:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout_at(self._ends_at):
                return await anext(self._texts)
        except TimeoutError:
            failure: RequestError = deadline_error(self._who)
        except RequestError as error:
            failure = error
        await self.aclose()
        return json.dumps(failure.body())

    async def aclose(self) -> None:
        """Abort the request: what is below closes its connection."""
        self._is_over = True
        await self._texts.aclose()


def needs_token_ids(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for vLLM's own field, by which text generation (`inputs`) counts tokens. Other servers ignore it."""
    return body.get("return_token_ids") is True


async def openai_chunks(who: str, reads: AsyncGenerator[bytes, None], *, needs_token_ids: bool = False) -> AsyncGenerator[str, None]:
    """The chunks of an OpenAI stream, whatever its framing, from bytes that may be split anywhere. `reads` is closed with it.
    `needs_token_ids`: text without its `token_ids` is no answer.

    Raises:
        RequestError: it told an error, said something else than chunks, or ended in the middle.
    """
    parser, ending = ChunkParser(), _Ending()
    async with contextlib.aclosing(reads):
        async for read in reads:
            for text in parser.feed(read):
                ending.note(_checked(who, text, needs_token_ids))
                yield text
            if parser.is_done:
                return
    for text in parser.finish():
        ending.note(_checked(who, text, needs_token_ids))
        yield text
    if not parser.is_done and not ending.is_told:
        raise TierFailure(f"{who} ended its stream in the middle of the answer", reason="broken")


def checked_whole(who: str, body: bytes, *, needs_token_ids: bool = False) -> bytes:
    """`body`, if it is an OpenAI answer. Raises TierFailure. `needs_token_ids`: see `openai_chunks`."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices or not _are_objects(choices) or not isinstance(answer.get("usage"), dict | None):
        raise TierFailure(f"{who} answered with something else than an OpenAI answer", reason="failed")
    _check_token_ids(who, choices, needs_token_ids)
    return body


class _Ending:
    """Whether every choice that has begun has also said why it finished: how a stream without `[DONE]` is known to be whole."""

    def __init__(self) -> None:
        self._finished: dict[int, bool] = {}

    @property
    def is_told(self) -> bool:
        return bool(self._finished) and all(self._finished.values())

    def note(self, chunk: dict[str, Any]) -> None:
        for choice in chunk["choices"]:
            self._finished[choice.get("index", 0)] = choice.get("finish_reason") is not None


def _checked(who: str, text: str, needs_token_ids: bool) -> dict[str, Any]:
    try:
        chunk = json.loads(text)
    except (ValueError, RecursionError):
        chunk = None
    if isinstance(chunk, dict) and chunk.get("error") is not None:
        error = chunk["error"]
        status = error.get("code") if isinstance(error, dict) else None
        raise status_error(who, status if isinstance(status, int) else _UNTOLD_STATUS, text.encode(), {})
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not _are_objects(choices) or any("message" in choice or not isinstance(choice.get("delta"), dict | None) for choice in choices):
        raise TierFailure(f"{who} sent something else than the chunks of an OpenAI stream", reason="failed")
    _check_token_ids(who, choices, needs_token_ids)
    return chunk


def _check_token_ids(who: str, choices: list[dict[str, Any]], are_needed: bool) -> None:
    if are_needed and any(choice.get("text") and choice.get("token_ids") is None for choice in choices):
        raise TierFailure(f"{who} tells no token_ids, which the request asks for", reason="failed")


def _are_objects(choices: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Each with an index that is a number, or none."""
    return isinstance(choices, list) and all(isinstance(choice, dict) and isinstance(choice.get("index", 0), int) for choice in choices)


def _says_something(chunk: dict[str, Any]) -> bool:
    """Not the chunk with the role that comes first, which servers send before there is anything."""
    return any(
        choice.get("finish_reason") or choice.get("text") or any(v for name, v in (choice.get("delta") or {}).items() if name != "role")
        for choice in chunk["choices"]
    )
