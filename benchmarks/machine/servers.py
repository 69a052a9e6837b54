"""Servers that benchmarks start, watch while they load, ask for their ledger, and end: each in a process group of its own, with deadlines.

A server that refuses to start or dies is told by its last words. Knows nothing of load.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from serving.errors import BenchmarkError

START_DEADLINE_S = 500.0
_STOP_DEADLINE_S = 40.0
_ASK_DEADLINE_S = 30.0
_POLL_S = 0.2
_TAIL_BYTES = 65536
_MAX_REASON_LENGTH = 300
MAX_MODEL_LEN = 2048
# The same KV cache for all: each would take what is free, of which the first would leave too little.
ENGINE_ARGUMENTS = ["--max-model-len", str(MAX_MODEL_LEN), "--kv-cache-memory-bytes", "1G"]
SERVE = [sys.executable, "-m", "serving", "serve", "{model}", "--port", "{port}"]
TOKENPORT = [*SERVE, *ENGINE_ARGUMENTS]
VLLM_SERVE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}", "--port", "{port}"]
VLLM = [*VLLM_SERVE, *ENGINE_ARGUMENTS]
BARE = {"VLLM_PLUGINS": ""}
"""vLLM would load Tokenport's plugin, which is installed beside it."""


class ServerFailed(BenchmarkError):
    """A server did not start, or ended; the text is its own one-line reason where it gave one."""


@dataclass(frozen=True)
class Contestant:
    """A server to start: `{model}` and `{port}` in the command are filled in. `health`: the path that answers 200 when it can be used."""

    name: str
    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    health: str = "/ping"


@dataclass
class Running:
    """A server's process, and where it answers. `start_s` is None until it has answered, then the seconds that took from its start."""

    name: str
    url: str
    process: psutil.Process
    child: subprocess.Popen[bytes]
    log: Path
    started: float
    """On the monotonic clock."""
    log_offset: int = 0
    health: str = "/ping"
    _start_s: float | None = None

    @property
    def start_s(self) -> float:
        """Seconds from the start of the process to the first 200 of its health path."""
        if self._start_s is None:
            raise RuntimeError(f"{self.name} has not been waited for")
        return self._start_s

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Return when its health path answers 200.

        Raises:
            ServerFailed: it ended before, or did not become ready within `deadline_s` of its start.
        """
        while not is_up(self.url, self.health):
            if (code := self.child.poll()) is not None:
                raise ServerFailed(f"{self.name} ended with code {code} before it was ready: {self.last_words()}")
            if time.monotonic() - self.started > deadline_s:
                raise ServerFailed(f"{self.name} was not ready after {deadline_s:g} s: {self.last_words()}")
            time.sleep(_POLL_S)
        self._start_s = time.monotonic() - self.started

    def processes(self) -> list[psutil.Process]:
        """The server's process and all that it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def pss_bytes(self) -> int:
        """Memory of all its processes, pages that they share counted once."""
        return sum_of(self.processes(), lambda process: process.memory_full_info().pss)

    def rss_bytes(self) -> int:
        """Resident memory of all its processes, shared pages counted in each: what a quick look gives."""
        return sum_of(self.processes(), lambda process: process.memory_info().rss)

    def last_words(self) -> str:
        """The line of the log that says why: the last of Tokenport's own, else the last that names an error, else the last."""
        return reason_in(_tail(self.log, self.log_offset)) or f"it said nothing in {self.log.name}"


def sum_of(processes: Sequence[psutil.Process], size: Any) -> int:
    """`size(process)` of all that still are."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += int(size(process))
    return total


def reason_in(text: str) -> str:
    """See `Running.last_words`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix("tokenport: ") for line in lines if line.startswith("tokenport: ")]
    errors = [line for line in lines if "Error" in line]
    return (own or errors or lines or [""])[-1][:_MAX_REASON_LENGTH]


@contextlib.contextmanager
def starting(contestant: Contestant, model: str, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a contestant, yield it at once, and end it. `environ` is the whole of its environment's base; None: this process's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    added = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **contestant.environ}
    words = [word.format(model=model, port=port) if word in ("{model}", "{port}") else word for word in contestant.command]
    command = ["env", *(f"{name}={value}" for name, value in added.items()), *words]
    started = time.monotonic()
    with log.open("ab") as output:
        offset = output.tell()
        child = subprocess.Popen(command, env=environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0)
    server = Running(contestant.name, f"http://127.0.0.1:{port}", psutil.Process(child.pid), child, log, started, offset, contestant.health)
    try:
        yield server
    finally:
        _end(child)


@contextlib.contextmanager
def running(contestant: Contestant, model: str, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a contestant, yield it when it answers, and end it.

    Raises:
        ServerFailed: it does not start.
    """
    with starting(contestant, model, log, environ) as server:
        server.wait_ready()
        yield server


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    # A server that was killed or fell leaves its engine's processes, which hold the memory that the next one needs.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def is_up(url: str, path: str = "/ping") -> bool:
    """Whether it answers 200 there."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}{path}", timeout=5).status_code == httpx.codes.OK
    return False


def ledger(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The server's own account of its memory, `GET /memory`; None from one that has none or does not answer."""
    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(f"{url}/memory", headers=dict(headers or {}), timeout=_ASK_DEADLINE_S)
        body = answer.json() if answer.status_code == httpx.codes.OK else None
        return body if isinstance(body, dict) and "devices" in body else None
    return None


def first_model(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The first entry of `GET /v1/models`: `id`, `root`, `max_model_len`.

    Raises:
        BenchmarkError: the server does not tell.
    """
    try:
        answer = httpx.get(f"{url}/v1/models", headers=dict(headers or {}), timeout=_ASK_DEADLINE_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["data"][0]
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise BenchmarkError(f"{url}/v1/models does not tell what is served there: {error or type(error).__name__}") from error
    return found


def metrics_text(url: str, headers: Mapping[str, str] | None = None) -> str:
    """`GET /metrics`.

    Raises:
        BenchmarkError: the server does not tell.
    """
    try:
        answer = httpx.get(f"{url}/metrics", headers=dict(headers or {}), timeout=_ASK_DEADLINE_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise BenchmarkError(f"{url}/metrics cannot be read: {error or type(error).__name__}") from error
    return answer.text


def _tail(log: Path, offset: int) -> str:
    try:
        with log.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(offset, size - _TAIL_BYTES))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
