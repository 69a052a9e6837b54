"""The real server for tests that need it: a process of its own, the real model, a real socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from serving.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
MODEL = "smollm2-135m-instruct"
START_DEADLINE_S = 280
# As it was before a test had vLLM in this process, which writes into it.
_ENVIRON = dict(os.environ)
MAX_MODEL_LEN = 2048

SERVER_SETTINGS = {
    # Small enough that prompts are split over steps as soon as a few come together.
    "TOKENPORT_MAX_NUM_BATCHED_TOKENS": "256",
    "TOKENPORT_MAX_MODEL_LEN": str(MAX_MODEL_LEN),
    "TOKENPORT_ENABLE_AUTO_TOOL_CHOICE": "true",
    "TOKENPORT_TOOL_CALL_PARSER": "hermes",
    "TOKENPORT_KV_CACHE_MEMORY_BYTES": "2G",
    "TOKENPORT_DRAIN_S": "20",
    # As in the image and on a minimal machine: whatever would compile fails, and is found.
    "CXX": "/no/compiler",
}


def settings_in(cache_dir: Path) -> Settings:
    """The defaults, with this cache folder."""
    return load_settings([], {"TOKENPORT_CACHE_DIR": str(cache_dir)})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """One running `tokenport serve` and what it has said so far."""

    process: subprocess.Popen[bytes]
    url: str
    stdout: Path
    stderr: Path
    pings: list[tuple[float, int, dict]] = field(default_factory=list)
    """Seconds since the start, status and body of each ping until ready."""

    def log_lines(self) -> list[str]:
        return self.stderr.read_text().splitlines()

    def logged(self) -> list[dict]:
        return [json.loads(line) for line in self.log_lines()]

    def running(self) -> float:
        """Sequences that the engine runs now, as `/metrics` tells."""
        for line in httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines():
            if line.startswith("vllm:num_requests_running{"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError("no running count in /metrics")

    def wait_ready(self, started: float) -> None:
        while time.monotonic() - started < START_DEADLINE_S:
            assert self.process.poll() is None, f"the server ended: {self.stderr.read_text()[-2000:]}"
            try:
                answer = httpx.get(f"{self.url}/ping", timeout=5)
            except httpx.ConnectError:
                time.sleep(0.02)
                continue
            self.pings.append((time.monotonic() - started, answer.status_code, answer.json() if answer.content else {}))
            if answer.status_code == 200:
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {START_DEADLINE_S} s: {self.stderr.read_text()[-2000:]}")

    def engine_pid(self) -> int:
        """The engine core's process: the child that holds the model."""
        return max(psutil.Process(self.process.pid).children(), key=lambda child: child.memory_info().rss).pid


@contextlib.contextmanager
def start_server(folder: Path, cache_dir: Path, command: list[str] | None = None, **settings: str) -> Iterator[Server]:
    """Start, wait until ready, and end at the latest with the block."""
    port = free_port()
    inherited = {name: value for name, value in _ENVIRON.items() if not name.startswith(("TOKENPORT_", "SM_VLLM_", "OPTION_"))}
    environ = inherited | SERVER_SETTINGS | {"TOKENPORT_PORT": str(port), "TOKENPORT_CACHE_DIR": str(cache_dir)} | settings
    stdout, stderr = folder / "stdout", folder / "stderr"
    started = time.monotonic()
    with stdout.open("wb") as out, stderr.open("wb") as err:
        words = command or [sys.executable, "-m", "serving", "serve"]
        process = subprocess.Popen(words, cwd=ROOT, env=environ, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    try:
        server = Server(process, f"http://127.0.0.1:{port}", stdout, stderr)
        server.wait_ready(started)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            killer = threading.Timer(40, process.kill)
            killer.start()
            process.wait()
            killer.cancel()


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Kept in the checkout, so that the model is converted once, not once a run."""
    return ROOT / ".cache" / "tokenport"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Server]:
    """The server that most tests share. Tests that end it start their own."""
    with start_server(tmp_path_factory.mktemp("server"), cache_dir) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client
