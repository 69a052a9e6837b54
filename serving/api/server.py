"""The process's life: bind, serve, start the engine, wait for a signal or a death, drain, exit. The only code that handles signals.

The socket is listening before the engine is asked for anything, and until the last stream has ended.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import uvicorn

from serving.api.app import create_app
from serving.api.context import InFlight
from serving.api.lifecycle import Lifecycle
from serving.engine.interface import Engine
from serving.errors import EngineDead, StartError
from serving.settings import Settings

logger = logging.getLogger("tokenport.server")

_T = TypeVar("_T")
_TELL_STREAMS_S = 2.0
"""How long open streams may take to pass on that the engine has died."""


class _Server(uvicorn.Server):
    """uvicorn with its signal handlers left out: it would close the socket first and drain afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(engine: Engine, settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until told to stop.

    Raises:
        StartError: the engine did not come up.
        EngineDead: it came up and died.
    """
    lifecycle, in_flight = Lifecycle(), InFlight()
    app = create_app(engine, settings, lifecycle, in_flight)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1))
    stop = _StopSignal()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _live(engine, settings, lifecycle, in_flight, stop, on_ready)
    except (StartError, EngineDead) as error:
        lifecycle.fail(str(error))
        await in_flight.wait_idle(_TELL_STREAMS_S)
        raise
    finally:
        server.should_exit = True
        await serving
        await engine.stop()


async def _live(
    engine: Engine, settings: Settings, lifecycle: Lifecycle, in_flight: InFlight, stop: "_StopSignal", on_ready: Callable[[], None]
) -> None:
    await stop.or_done(engine.start(lifecycle.progress))
    if not stop.is_set:
        lifecycle.ready()
        on_ready()
        reason = await stop.or_done(engine.wait_dead())
        if reason is not None:
            raise EngineDead(reason)
    lifecycle.drain(f"received {stop.name}")
    logger.info("draining", extra={"signal": stop.name, "running": in_flight.count, "deadline_s": settings.drain_s})
    stop.rearm()
    idle = await stop.or_done(in_flight.wait_idle(settings.drain_s))
    if not idle:
        logger.warning("drain deadline passed or second signal: ending what still runs", extra={"running": in_flight.count})
    lifecycle.stop()


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
