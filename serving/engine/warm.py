"""Fills the compilers' caches: the server is started once with the settings it will be served with, until it has produced a token.

It is the command line that is started, so nothing here can differ from a real start: the same environment, defaults and processes.
"""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from serving.engine.shipped_cache import ship_cache
from serving.errors import StartError

_READY = "Tokenport is ready"
_DEADLINE_S = 3600.0
"""Compiling a large model for all its CUDA graph sizes takes tens of minutes."""
_STOP_S = 60.0
_SERVE = (sys.executable, "-m", "serving", "serve")


def warm(
    model_folder: Path, cache_dir: Path, words: Sequence[str], *, serve: Sequence[str] = _SERVE, deadline_s: float = _DEADLINE_S
) -> int:
    """Start once, keep what was compiled in `cache_dir`, ship it in `model_folder`. Returns the shipped bytes.

    `words` are settings as on the command line, for instance `["--max-model-len", "4096"]`; `serve` is the command that takes them.

    Raises:
        StartError: the server did not come up, in its own words, or not within `deadline_s`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*serve, str(model_folder), *words, "--host", "127.0.0.1", "--port", str(port), "--cache-dir", str(cache_dir)]
    _run_until_ready(command, deadline_s)
    return ship_cache(cache_dir, model_folder)


def _run_until_ready(command: Sequence[str], deadline_s: float) -> None:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        if server.stdout is None or server.stderr is None:
            raise ValueError("the server needs pipes")
        said: list[str] = []
        errors, late = server.stderr, threading.Event()

        def give_up() -> None:
            late.set()
            server.terminate()

        timer = threading.Timer(deadline_s, give_up)
        reader = threading.Thread(target=lambda: said.extend(errors), daemon=True)
        timer.start()
        reader.start()
        try:
            is_ready = any(line.startswith(_READY) for line in server.stdout)
        finally:
            timer.cancel()
            _end(server)
        reader.join(_STOP_S)
    if late.is_set():
        raise StartError(f"the model was not ready within {deadline_s:.0f} s")
    if not is_ready:
        raise StartError((said[-1].strip() if said else f"the server ended with {server.returncode}").removeprefix("tokenport: "))


def _end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_STOP_S)
        return
    server.kill()
