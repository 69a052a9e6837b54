"""The engine's process is there from the start, and goes with the server whenever that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, free_port

pytestmark = pytest.mark.engine


def test_the_engines_process_began_while_the_server_was_still_importing(server):
    told_s = next(at for at, _, body in server.pings if body.get("phase") == "starting the engine process")
    engine, api = psutil.Process(server.engine_pid()), psutil.Process(server.process.pid)
    assert engine.create_time() - api.create_time() < told_s - 1
    assert not [line for line in server.logged() if "started anew" in line["message"]]


def test_the_engines_process_computes_with_intels_openmp(server):
    if not (Path(sys.prefix) / "lib" / "libiomp5.so").exists():
        pytest.fail("intel-openmp belongs to the CPU lock")
    engine = psutil.Process(server.engine_pid())
    assert any("libiomp5" in mapping.path for mapping in engine.memory_maps())


@pytest.fixture
def importing(cache_dir):
    """A server that is importing, its process and its engine's."""
    environ = os.environ | {"TOKENPORT_PORT": str(free_port()), "TOKENPORT_CACHE_DIR": str(cache_dir)}
    command = [sys.executable, "-m", "serving", "serve"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (children := _engines(process)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    yield process, children[0]
    process.kill()
    process.communicate()


def _engines(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "begin_engine_process" in " ".join(child.cmdline())]


def test_sigterm_while_importing_ends_both_at_once_and_silently(importing):
    process, engine = importing
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    # JSON lines only: no traceback of either process.
    assert all(line.startswith("{") for line in err.splitlines()), err
    # Its pipe is closed, so it has ended; who adopted it may take a moment to notice.
    assert not psutil.wait_procs([engine], timeout=10)[1]


def test_the_engines_process_does_not_outlive_a_server_that_is_killed_while_importing(importing):
    process, engine = importing
    process.kill()
    _, err = process.communicate(timeout=60)  # its pipe is closed only when the engine's process has ended too
    _, alive = psutil.wait_procs([engine], timeout=60)
    assert not alive
    assert "Traceback" not in err
