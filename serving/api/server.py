"""The process's life: bind, serve, start the engine, wait for a signal or a death, drain, exit. The only code that handles signals, but for
the first seconds, in which `__main__` leaves at once on one.

The socket is listening before the engine is asked for anything, and until the last stream has ended.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import psutil
import uvicorn
from prometheus_client import REGISTRY
from starlette.types import ASGIApp

from serving.api.app import create_app
from serving.api.context import InFlight
from serving.api.custom_code import CustomCode
from serving.api.emf import report_metrics
from serving.api.lifecycle import Lifecycle
from serving.api.memory import log_start
from serving.api.watch import watch
from serving.engine.interface import Engine
from serving.errors import EngineDead, StartError
from serving.settings import Settings

logger = logging.getLogger("tokenport.server")

_T = TypeVar("_T")
_TELL_STREAMS_S = 2.0
"""How long open streams may take to pass on that the engine has died, or that they are ended."""
_TELL_AT_ONCE_S = 0.5
"""The same after a second signal."""
_CUT_AGAIN_S = 0.1


class _Server(uvicorn.Server):
    """uvicorn with its signal handlers left out: it would close the socket first and drain afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_config(app: ASGIApp, max_body_bytes: int) -> uvicorn.Config:
    """How uvicorn serves `app`. A frame on a socket may be as large as a body; compressing small frames costs more than it saves."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        ws="websockets-sansio",
        ws_max_size=max_body_bytes,
        ws_per_message_deflate=False,
    )


async def serve(
    engine: Engine, settings: Settings, listener: socket.socket, on_ready: Callable[[], None], custom_code: CustomCode | None = None
) -> None:
    """Serve until told to stop.

    Raises:
        StartError: the engine did not come up.
        EngineDead: it came up and died.
    """
    lifecycle, in_flight = Lifecycle(age_s=max(0.0, time.time() - psutil.Process().create_time())), InFlight()
    app = create_app(engine, settings, lifecycle, in_flight, custom_code)
    server = _Server(http_config(app, settings.max_body_bytes))
    stop = _StopSignal()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _live(engine, settings, lifecycle, in_flight, stop, on_ready, custom_code)
    except (StartError, EngineDead) as error:
        lifecycle.fail(str(error))
        await in_flight.wait_idle(_TELL_STREAMS_S)
        raise
    finally:
        server.should_exit = True
        await serving
        await engine.stop()


async def _live(
    engine: Engine,
    settings: Settings,
    lifecycle: Lifecycle,
    in_flight: InFlight,
    stop: "_StopSignal",
    on_ready: Callable[[], None],
    custom_code: CustomCode | None,
) -> None:
    await stop.or_done(custom_code.start(engine, lifecycle.progress) if custom_code else engine.start(lifecycle.progress))
    if not stop.is_set:
        lifecycle.ready()
        on_ready()
        background = [
            asyncio.create_task(watch(engine, lifecycle, settings.stall_s)),
            asyncio.create_task(log_start(engine, lifecycle)),
            asyncio.create_task(report_metrics(engine, settings, REGISTRY, sys.stdout)),
        ]
        try:
            reason = await stop.or_done(engine.wait_dead())
        finally:
            for task in background:
                task.cancel()
        if reason is not None:
            raise EngineDead(reason)
    lifecycle.drain(f"received {stop.name}")
    await _drain(engine, settings.drain_s, in_flight, stop)
    lifecycle.stop()


async def _drain(engine: Engine, drain_s: float, in_flight: InFlight, stop: "_StopSignal") -> None:
    """Let what runs finish; what still runs at the deadline, or at a second signal, ends with the text so far or a terminal event."""
    logger.info("draining", extra={"signal": stop.name, "running": in_flight.count, "deadline_s": drain_s})
    stop.rearm()
    if await stop.or_done(in_flight.wait_idle(drain_s)):
        return
    logger.warning("ending what still runs", extra={"running": in_flight.count, "why": "second signal" if stop.is_set else "deadline"})
    loop = asyncio.get_running_loop()
    give_up = loop.time() + (_TELL_AT_ONCE_S if stop.is_set else _TELL_STREAMS_S)
    while loop.time() < give_up:
        # Again and again: a request that was on its way into the engine was not there to be ended yet.
        engine.work.cut_all("shutdown")
        if await in_flight.wait_idle(_CUT_AGAIN_S):
            return


class _StopSignal:
    """SIGTERM and SIGINT as something to wait for besides other work."""

    def __init__(self) -> None:
        self.name = ""
        self._event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def rearm(self) -> None:
        """From now on wait for a further signal."""
        self._event.clear()

    async def or_done(self, work: Awaitable[_T]) -> _T | None:
        """What `work` returns, or None with `work` cancelled when a signal comes first."""
        working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            waiting.cancel()
            working.cancel()

    def _on_signal(self, number: signal.Signals) -> None:
        self.name = number.name
        self._event.set()
