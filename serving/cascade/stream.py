"""The stream that a client gets: the accepted tier's chunks, without what only the cascade asked for, and with what all of it has cost."""

import json
from collections.abc import Callable
from typing import Any, Literal, Self

from serving.cascade.asked import Asked, usage_of
from serving.cascade.costs import Usage
from serving.cascade.draft import Draft
from serving.cascade.interruption import Interruption
from serving.errors import NotReady, TierFailure

Ending = Literal["whole", "failed", "left"]
"""`left`: by the client, or because this server ends."""
_USAGE = '"usage"'
"""Looked for in the text of a chunk, so that most need not be parsed."""
_ERROR = '{"error"'


class CascadeChunks:
    """`Chunks`. `on_end` is called once with what was used, and how it ended; it returns what goes into the last chunk's `usage`. Where the
    tier has not told what it used, each chunk counts as a token. `interruption`: ends it with an error; None where the tier itself does
    that."""

    def __init__(
        self,
        draft: Draft,
        asked: Asked,
        on_end: Callable[[Usage, Ending], dict[str, Any]],
        *,
        is_judged: bool,
        interruption: Interruption | None,
    ) -> None:
        self._draft = draft
        self._asked = asked
        self._on_end = on_end
        self._is_judged = is_judged
        self._interruption = interruption
        self._last: dict[str, Any] | None = None
        """The last chunk with a usage: that is all of it so far."""
        self._num_chunks = 0
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._is_over:
            text = await self._next()
            shown = self._end() if text is None else self._shown(text)
            if shown is not None:
                return shown
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Abort the request."""
        self._finish("left")
        await self._draft.aclose()

    async def _next(self) -> str | None:
        if self._interruption is None:
            return await anext(self._draft, None)
        try:
            async with self._interruption.ends():
                return await anext(self._draft, None)
        except TimeoutError:
            self._finish("left")
            return json.dumps(NotReady("the server is shutting down; the answer is incomplete").body())

    def _shown(self, text: str) -> str | None:
        """The chunk as the client sees it, None where it has nothing for the client."""
        if text.startswith(_ERROR):
            self._finish("failed")
            return text
        self._num_chunks += 1
        if not self._is_judged and _USAGE not in text:
            return text
        chunk = json.loads(text)
        if usage_of(chunk) is not None:
            self._last = dict(chunk)
            if not chunk["choices"]:
                return None
        try:
            self._asked.restore(chunk, is_judged=self._is_judged)
        except (LookupError, TypeError, AttributeError):
            self._finish("failed")
            return json.dumps(TierFailure("the model told log-probabilities in no known shape", reason="failed").body())
        return _compact(chunk)

    def _end(self) -> str | None:
        """The chunk with the usage, if the client wants it and the tier told it."""
        told = self._finish("whole")
        if self._last is None or not self._asked.wants_usage:
            return None
        return _compact({**self._last, "choices": [], "usage": {**self._last["usage"], "tokenport": told}})

    def _finish(self, ending: Ending) -> dict[str, Any]:
        if self._is_over:
            return {}
        self._is_over = True
        told = usage_of(self._last) if self._last is not None else None
        return self._on_end(told or Usage(None, self._num_chunks), ending)


def _compact(chunk: dict[str, Any]) -> str:
    """As vLLM writes it."""
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
