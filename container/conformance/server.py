"""A server under test: where it is, what can be seen of its processes, files and network, and how its start went.

Where something cannot be seen (another machine's URL, no root), `hidden` says why, and checks that need it are skipped with that reason.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from container.conformance.client import ACCEPT_LIMIT_S, Client, Ping
from container.conformance.network import PrivateNetwork
from container.conformance.requests import completion

_CONNECT_EVERY_S = 0.05
_PING_EVERY_S = 0.1
_FIRST_ANSWER_LIMIT_S = 30.0
_ENGINE_NAMES = ("enginecore", "engine_core", "engine core")


class StartFailed(Exception):
    """The server ended, or was not ready in time. The text carries its last line."""


class Program(Protocol):
    """The process that was started, or the container's first."""

    pid: int
    """As seen from here."""

    def send_signal(self, number: int) -> None:
        """Deliver a signal to it alone."""

    def exit_code(self, limit_s: float) -> int | None:
        """Its exit code (128 + n when signal n ended it), or None if it runs on for `limit_s`."""

    def last_line(self) -> str:
        """The last line on standard error."""

    def end(self) -> None:
        """Leave nothing of it running."""


@dataclass
class Loading:
    """What was seen between the start and the first 200. Seconds since the start."""

    started: float = 0.0
    """On the monotonic clock."""
    connects: list[tuple[float, float]] = field(default_factory=list)
    """Every 50 ms from the first that was accepted: when, and how long it took; infinite where it was refused."""
    pings: list[Ping] = field(default_factory=list)
    """From the first that was answered in any way."""
    first_accept_s: float | None = None
    ready_s: float | None = None
    first_answer: tuple[int | None, float] | None = None
    """Status and seconds of a request sent at the first 200."""


@dataclass
class Server:
    """Everything the checks may use. Keys of `hidden`: start, processes, network, model, readonly, port."""

    client: Client
    hidden: dict[str, str] = field(default_factory=dict)
    program: Program | None = None
    network: PrivateNetwork | None = None
    model_folder: str | None = None
    model_digest: str | None = None
    safe_ports: range = range(0)
    is_image: bool = False
    is_tokenport: bool = False
    loading: Loading = field(default_factory=Loading)
    observed: dict[str, object] = field(default_factory=dict)
    """What a scenario has shown that several checks look at."""

    @property
    def port(self) -> int:
        """The port it was told to listen on."""
        return self.client.address[1]

    def processes(self) -> list[psutil.Process]:
        """The first process and all its descendants."""
        if self.program is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.program.pid)
            return [first, *first.children(recursive=True)]
        return []

    def engine_core(self) -> psutil.Process | None:
        """The process that schedules: by its name, else the largest child."""
        children = self.processes()[1:]
        named = [child for child in children if any(name in _title(child) for name in _ENGINE_NAMES)]
        return named[0] if named else max(children, key=lambda child: child.memory_info().rss, default=None)

    def worker(self) -> psutil.Process | None:
        """A process that computes and is not the engine core; None where the engine core computes itself."""
        core = self.engine_core()
        workers = [child for child in self.processes()[1:] if core is not None and child.pid != core.pid and "worker" in _title(child)]
        return workers[-1] if workers else None

    def watch_start(self, limit_s: float) -> None:
        """Connect and ping from now on until `/ping` is 200, then ask for a token.

        Raises:
            StartFailed: the process ends before, or `limit_s` pass.
        """
        started, done = time.monotonic(), threading.Event()
        self.loading.started = started
        connecting = threading.Thread(target=self._connect_until, args=(done, started), daemon=True)
        connecting.start()
        try:
            self._ping_until_ready(started, limit_s)
        finally:
            done.set()
            connecting.join()
        asked = time.monotonic()
        answer = self.client.http.post("/invocations", json=completion(1), headers=self.client.headers(), timeout=_FIRST_ANSWER_LIMIT_S)
        self.loading.first_answer = (answer.status_code, time.monotonic() - asked)

    def _ping_until_ready(self, started: float, limit_s: float) -> None:
        while time.monotonic() - started < limit_s:
            if self.program is not None and (code := self.program.exit_code(0)) is not None:
                raise StartFailed(f"ended with {code} before it was ready: {self.program.last_line()}")
            ping = self.client.ping()
            if ping.connect_s is not None:
                self.loading.pings.append(ping)
            if ping.status == 200:
                self.loading.ready_s = time.monotonic() - started
                return
            time.sleep(_PING_EVERY_S)
        last = self.loading.pings[-1] if self.loading.pings else None
        raise StartFailed(f"not ready after {limit_s:.0f} s; last ping: {last and (last.status or last.error)}")

    def _connect_until(self, done: threading.Event, started: float) -> None:
        while not done.is_set():
            at_s = time.monotonic() - started
            try:
                took_s = self.client.connect_s(limit_s=4 * ACCEPT_LIMIT_S)
            except OSError:
                took_s = float("inf")
            if self.loading.first_accept_s is None and took_s != float("inf"):
                self.loading.first_accept_s = at_s + took_s
            if self.loading.first_accept_s is not None:
                self.loading.connects.append((at_s, took_s))
            done.wait(_CONNECT_EVERY_S)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join((process.name(), *process.cmdline())).lower()
    except psutil.NoSuchProcess:
        return ""
