"""The fault table: what a process that dies or hangs behind the server does to its health, its open requests and its exit.

Each fault needs a server of its own. A dead engine must end the process; a hanging one must be seen.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil

from container.conformance.check import OWN, Check, Skipped, expect
from container.conformance.checks_stop import begun, program_of
from container.conformance.requests import never_ending
from container.conformance.server import Server

STALL_S = 5
"""TOKENPORT_STALL_S while a process hangs; elsewhere the default of 30 s is waited for."""
_STALL_LIMIT_S = 45.0
_DEATH_LIMIT_S = 5.0
_WATCH_DEATH_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Fault:
    """One row of the table. Seconds since the signal; None for never within the time watched."""

    name: str
    unhealthy_s: float | None
    health: str
    stream: str
    answer: str
    exit_s: float | None
    exit_code: int | None
    last_line: str

    @property
    def told(self) -> str:
        """The row in one line."""
        unhealthy = f"/ping {self.health} after {self.unhealthy_s:.2f} s" if self.unhealthy_s is not None else f"/ping stays {self.health}"
        ended = f"exit {self.exit_code} after {self.exit_s:.1f} s" if self.exit_s is not None else "it lives on"
        return f"{unhealthy}; stream: {self.stream}; answer: {self.answer}; {ended}; {self.last_line!r}"


class _Answer(threading.Thread):
    """A request that is not streamed, on a thread."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._client = server.client
        self._body = never_ending(server.client)
        self.told = "still waiting"
        self.start()

    def run(self) -> None:
        try:
            answer = self._client.invoke(self._body)
            self.told = f"{answer.status_code} {answer.text[:100]}"
        except httpx.HTTPError as error:
            self.told = type(error).__name__


def _inflict(server: Server, name: str, number: signal.Signals, victim: psutil.Process, watch_s: float) -> Fault:
    program = program_of(server)
    stream = begun(server.client.stream(never_ending(server.client)))
    answer = _Answer(server)
    time.sleep(1)
    os.kill(victim.pid, number)
    struck = time.monotonic()
    unhealthy_s, health, exit_s, code = None, "200", None, None
    # A server that hangs answers nothing more: what its streams get is seen some time after its health.
    while time.monotonic() - struck < watch_s and exit_s is None and not (number == signal.SIGSTOP and unhealthy_s is not None):
        if unhealthy_s is None and (ping := server.client.ping()).status != 200:
            unhealthy_s = time.monotonic() - struck
            health = f"{ping.status} {ping.told.get('status', '')}".strip() if ping.status else "refused"
        if (code := program.exit_code(0)) is not None:
            exit_s = time.monotonic() - struck
        time.sleep(_POLL_S)
    stream.finish(2)
    answer.join(2)
    fault = Fault(name, unhealthy_s, health, stream.told, answer.told, exit_s, code, program.last_line() if exit_s is not None else "")
    server.observed["fault"] = fault
    return fault


def _killed(name: str, find: Callable[[Server], psutil.Process]) -> Callable[[Server], str]:
    def run(server: Server) -> str:
        fault = _inflict(server, name, signal.SIGKILL, find(server), _WATCH_DEATH_S)
        expect(fault.unhealthy_s is not None and fault.unhealthy_s < _DEATH_LIMIT_S, fault.told)
        expect(fault.exit_s is not None and fault.exit_s < _DEATH_LIMIT_S, f"not gone within {_DEATH_LIMIT_S:.0f} s: {fault.told}")
        expect(fault.exit_code not in (0, None), f"exit code {fault.exit_code}, as if all were well: {fault.told}")
        expect("error event" in fault.stream, f"the stream was not told: {fault.told}")
        expect(fault.answer.startswith("5"), f"the request was not told: {fault.told}")
        return fault.told

    return run


def _stopped(name: str, find: Callable[[Server], psutil.Process]) -> Callable[[Server], str]:
    def run(server: Server) -> str:
        victim = find(server)
        limit_s = STALL_S + 5.0 if server.is_tokenport else _STALL_LIMIT_S
        try:
            fault = _inflict(server, name, signal.SIGSTOP, victim, limit_s)
            expect(fault.unhealthy_s is not None, f"{limit_s:.0f} s without a token, and {fault.told}")
            expect(fault.health.startswith("503"), fault.told)
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        continued = time.monotonic()
        while server.client.ping().status != 200 and time.monotonic() - continued < _DEATH_LIMIT_S:
            time.sleep(_POLL_S)
        expect(server.client.ping().status == 200, f"continued, it does not recover; {fault.told}")
        return f"{fault.told}; after SIGCONT 200 again in {time.monotonic() - continued:.1f} s"

    return run


def _engine_core(server: Server) -> psutil.Process:
    program_of(server)
    core = server.engine_core()
    if core is None:
        raise Skipped("it has no process but the one that serves")
    return core


def _worker(server: Server) -> psutil.Process:
    program_of(server)
    worker = server.worker()
    if worker is None:
        raise Skipped("its engine core computes itself: no worker process")
    return worker


_DEATH = "is killed: /ping is not 200, the open requests are told, the process exits non-zero within 5 s"
_STALL = "hangs: /ping is 503 once no token has come for the stall time, and 200 again when it goes on"
KILL_ENGINE = (Check("kill-engine", f"The engine core {_DEATH}", OWN, _killed("kill -9 of the engine core", _engine_core)),)
KILL_WORKER = (Check("kill-worker", f"A worker {_DEATH}", OWN, _killed("kill -9 of a worker", _worker)),)
STOP_ENGINE = (Check("stop-engine", f"The engine core {_STALL}", OWN, _stopped("SIGSTOP of the engine core", _engine_core)),)
STOP_WORKER = (Check("stop-worker", f"A worker {_STALL}", OWN, _stopped("SIGSTOP of a worker", _worker)),)
