"""The engine of this process as a tier: what keeps it from answering lets another tier be asked."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from serving.engine.interface import Chunks, Engine, Kind
from serving.engine.work import Scope, current_scope
from serving.errors import EngineFailure, NotReady, Overloaded, Reason, RequestError, TierFailure

_REASONS: dict[type[RequestError], Reason] = {NotReady: "not_ready", Overloaded: "throttled", EngineFailure: "failed"}


class LocalModel:
    """A `RemoteModel` that is not remote. Past the deadline it ends as the engine ends whatever is late: with the text so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def kinds(self) -> frozenset[Kind]:
        """See `RemoteModel`."""
        return frozenset(("chat", "completion"))

    def cannot_honour(self, kind: Kind, body: Mapping[str, Any]) -> str | None:
        """See `RemoteModel`. The engine says itself what it has nothing for."""
        return None

    async def generate(self, kind: Kind, body: Mapping[str, Any], request_id: str, *, deadline_s: float) -> bytes | Chunks:
        """See `RemoteModel`."""
        outer = current_scope.get() or Scope()
        limit_s = time.monotonic() - outer.started + deadline_s
        inner = replace(outer, deadline_s=limit_s, stream_deadline_s=limit_s)
        token = current_scope.set(inner)
        try:
            answer = await self._engine.generate(kind, {**body, "model": self._engine.model_names[0]}, request_id)
        except (NotReady, Overloaded, EngineFailure) as error:
            raise TierFailure(f"the model of this server did not answer: {error.message}", reason=_REASONS[type(error)]) from error
        finally:
            current_scope.reset(token)
        outer.ended_by = inner.ended_by or outer.ended_by
        return answer if isinstance(answer, bytes) else _ScopedChunks(answer, inner, outer)

    async def close(self) -> None:
        """See `RemoteModel`. The engine is stopped with the server."""


class _ScopedChunks:
    """Tells the request's own scope why the stream was ended early."""

    def __init__(self, chunks: Chunks, inner: Scope, outer: Scope) -> None:
        self._chunks = chunks
        self._inner = inner
        self._outer = outer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return await anext(self._chunks)
        finally:
            self._outer.ended_by = self._inner.ended_by or self._outer.ended_by

    async def aclose(self) -> None:
        await self._chunks.aclose()
