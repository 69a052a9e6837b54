"""A cascade is an engine too: around the engine of this process it answers for `auto` and for the tiers' names; all else is that engine's.

Its start brings up the tiers on this machine, one after the other, since each measures what memory is left; its life ends with any of them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp

from serving.cascade.answers import Answers, Rules
from serving.cascade.asked import Asked
from serving.cascade.config import AUTO, refuse_taken_names
from serving.cascade.openai_routes import OpenAIRoutes
from serving.cascade.second_engine import SecondEngine
from serving.engine.interface import Adapter, Adapters, Capacity, Chunks, Engine, Kind, Memory, Report
from serving.engine.work import Work
from serving.errors import Conflict


class CascadeEngine:
    """An `Engine`. `local` is one of the tiers of `rules`; `seconds` are the processes behind others of them."""

    def __init__(self, local: Engine, rules: Rules, seconds: Sequence[SecondEngine]) -> None:
        self._local = local
        self._tiers = rules.tiers
        self._seconds = seconds
        self._names = (AUTO, *(tier.name for tier in rules.tiers))
        self._answers = Answers(rules, local.work)
        self._app = OpenAIRoutes(self, lambda: local.openai_app, self._names)

    @property
    def model_names(self) -> list[str]:
        """See `Engine`."""
        return [*self._local.model_names, *self._names]

    @property
    def capacity(self) -> Capacity:
        """See `Engine`. Of the engine here: requests that other servers answer take places in the same queue."""
        return self._local.capacity

    @property
    def work(self) -> Work:
        """See `Engine`."""
        return self._local.work

    @property
    def adapters(self) -> Adapters | None:
        """See `Engine`."""
        return None if self._local.adapters is None else _Adapters(self._local.adapters, self._names)

    @property
    def openai_app(self) -> ASGIApp:
        """See `Engine`."""
        return self._app

    def openapi(self) -> dict[str, Any]:
        """See `Engine`."""
        return self._local.openapi()

    async def start(self, report: Report) -> None:
        """See `Engine`."""
        for second in self._seconds:
            await second.start(report)
        await self._local.start(report)
        refuse_taken_names(self._names, self._local.model_names)

    async def generate(self, kind: Kind, body: dict[str, Any], request_id: str) -> bytes | Chunks:
        """See `Engine`."""
        model = body.get("model")
        if isinstance(model, str) and model in self._names:
            return await self._answers.answer(Asked(kind, body), model, request_id)
        return await self._local.generate(kind, body, request_id)

    async def probe(self) -> None:
        """See `Engine`."""
        await self._local.probe()

    async def memory(self, deadline_s: float) -> Memory:
        """See `Engine`. Of the engine here."""
        return await self._local.memory(deadline_s)

    async def wait_dead(self) -> str:
        """See `Engine`. The first death of an engine on this machine."""
        deaths = [asyncio.ensure_future(self._local.wait_dead())]
        deaths += [asyncio.ensure_future(second.wait_dead()) for second in self._seconds]
        try:
            done, _ = await asyncio.wait(deaths, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for death in deaths:
                death.cancel()

    async def stop(self) -> None:
        """See `Engine`."""
        async with contextlib.AsyncExitStack() as last_first:
            last_first.push_async_callback(self._local.stop)
            last_first.push_async_callback(self._stop_seconds)
            for tier in self._tiers:
                last_first.push_async_callback(tier.model.close)

    async def _stop_seconds(self) -> None:
        """All at once: each may take as long as there is until the host kills this server."""
        await asyncio.gather(*(second.stop() for second in self._seconds))


class _Adapters:
    """The local engine's, to which the cascade's models are as ready as its base model."""

    def __init__(self, adapters: Adapters, names: Sequence[str]) -> None:
        self._adapters = adapters
        self._names = names

    def list(self) -> "list[Adapter]":
        return self._adapters.list()

    async def register(self, name: str, src: str, *, preload: bool, pin: bool) -> None:
        if name in self._names:
            raise Conflict(f"{name!r} is a model of the cascade: choose another name")
        await self._adapters.register(name, src, preload=preload, pin=pin)

    async def remove(self, name: str) -> None:
        await self._adapters.remove(name)

    async def make_ready(self, model: str) -> None:
        if model not in self._names:
            await self._adapters.make_ready(model)
