"""The application around a scripted engine: for exact timing and for faults on cue. What the real engine does is in tests/process."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serving.api.app import create_app
from serving.api.context import InFlight
from serving.api.lifecycle import Lifecycle
from serving.engine.interface import Capacity, Memory
from serving.engine.work import Work
from serving.errors import NotReady
from serving.settings import load_settings


class ScriptedChunks:
    """Gives `texts` one by one, waiting for `gate` before each where there is one; remembers that it was closed."""

    def __init__(self, texts: list[str], gate: asyncio.Semaphore | None = None) -> None:
        self._texts = iter(texts)
        self._gate = gate
        self.closed = False

    def __aiter__(self) -> "ScriptedChunks":
        return self

    async def __anext__(self) -> str:
        if self._gate is not None:
            await self._gate.acquire()
        try:
            return next(self._texts)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.closed = True


class ScriptedEngine:
    """Answers with whatever the test put into `answer` (an exception is raised), and keeps what it was asked."""

    def __init__(self) -> None:
        self.model_names = ["scripted"]
        self.capacity = Capacity(num_sequences=4, num_tokens=1000)
        self.work = Work()
        self.adapters: Any = None
        self.num_probes = 0
        self.measured: Memory | Exception = NotReady("the scripted engine has not measured its memory")
        self.answer: Any = b"{}"
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        self.was_asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def openai_app(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({"engine": scope["path"]}).encode()})

    def openapi(self):
        return {
            "paths": {"/v1/chat/completions": {"post": {}}, "/sleep": {"post": {}}},
            "components": {"schemas": {"ChatCompletionRequest": {"type": "object"}}},
        }

    async def memory(self, deadline_s):
        if isinstance(self.measured, Exception):
            raise self.measured
        return self.measured

    async def probe(self):
        self.num_probes += 1
        ticket = self.work.begin(1, 1, lambda: None)
        try:
            await asyncio.Event().wait()
        finally:
            self.work.end(ticket)

    async def generate(self, kind, body, request_id):
        self.asked.append((kind, body, request_id))
        self.was_asked.set()
        if isinstance(self.answer, BaseException):
            raise self.answer
        if isinstance(self.answer, asyncio.Event):
            try:
                await self.answer.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return self.answer


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def lifecycle() -> Lifecycle:
    lifecycle = Lifecycle()
    lifecycle.ready()
    return lifecycle


@pytest.fixture
def environ() -> dict[str, str]:
    return {}


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight()


@pytest.fixture
def app(engine, lifecycle, in_flight, environ, tmp_path: Path) -> FastAPI:
    settings = load_settings([], {"TOKENPORT_CACHE_DIR": str(tmp_path), **environ})
    return create_app(engine, settings, lifecycle, in_flight)


@pytest.fixture
async def client(app) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
