"""Signals and deaths, with a server of one's own: what each open request and the process's end look like."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.conftest import ROOT, free_port, start_server

pytestmark = pytest.mark.engine


class Stream(threading.Thread):
    """A streaming request on a thread, kept open while the server's fate is decided."""

    def __init__(self, url: str, max_tokens: int) -> None:
        super().__init__(daemon=True)
        self._url, self._max_tokens = url, max_tokens
        self.lines: list[str] = []
        self.first = threading.Event()
        self.start()

    def run(self) -> None:
        body = {"prompt": "Once upon a time", "max_tokens": self._max_tokens, "ignore_eos": True, "stream": True}
        try:
            with httpx.stream("POST", f"{self._url}/invocations", json=body, timeout=60) as answer:
                for line in answer.iter_lines():
                    self.lines.append(line)
                    self.first.set()
        except httpx.HTTPError as error:
            self.lines.append(repr(error))


def test_sigterm_lets_a_stream_end_refuses_new_requests_and_exits_0(tmp_path, cache_dir):
    with start_server(tmp_path, cache_dir, command=[str(ROOT / "container" / "serve"), "serve"]) as server:
        stream = Stream(server.url, max_tokens=60)
        assert stream.first.wait(30)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ping = httpx.get(f"{server.url}/ping")
        assert (ping.status_code, ping.json()["status"]) == (503, "draining")
        refused = httpx.post(f"{server.url}/invocations", json={"prompt": "x"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        stream.join(30)
        assert stream.lines[-2:] == ["data: [DONE]", ""]
        assert sum(line.startswith("data: {") for line in stream.lines) >= 60
        assert server.process.wait(15) == 0


def test_a_killed_engine_ends_the_process_after_telling_the_stream(tmp_path, cache_dir):
    with start_server(tmp_path, cache_dir) as server:
        stream = Stream(server.url, max_tokens=1500)
        assert stream.first.wait(30)
        engine_pid = server.engine_pid()
        os.kill(engine_pid, signal.SIGKILL)
        assert server.process.wait(5) == 1
        stream.join(5)
        assert any('"error"' in line for line in stream.lines[-6:]), stream.lines[-6:]
        assert server.log_lines()[-1].startswith("tokenport: the engine process died")


def run_serve(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", "serve", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENPORT_")}
    settings = {"TOKENPORT_PORT": str(free_port())} | environ
    return subprocess.run(command, cwd=ROOT, env=inherited | settings, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (["--max-modl-len", "5"], {}, "max-model-len"),
        ([], {"TOKENPORT_MAX_MODEL_LEN": "long"}, "TOKENPORT_MAX_MODEL_LEN"),
        (["/no/such/folder"], {}, "/no/such/folder"),
        ([], {"TOKENPORT_EMBEDDED_MODEL": "false"}, "set TOKENPORT_MODEL"),
    ],
)
def test_a_start_that_cannot_be_is_told_in_one_line_at_once(words, environ, said):
    started = time.monotonic()
    ended = run_serve(*words, **environ)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr
    # Before anything heavy is imported.
    assert time.monotonic() - started < 10


def test_a_setting_that_only_the_engine_can_judge_is_told_in_the_last_line(cache_dir):
    ended = run_serve(TOKENPORT_CACHE_DIR=str(cache_dir), TOKENPORT_MAX_MODEL_LEN="9000000")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("tokenport: ")
    assert "max_model_len" in ended.stderr.splitlines()[-1]


def test_a_port_in_use_is_told_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run_serve("--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
    assert "TOKENPORT_PORT" in ended.stderr


def test_a_second_sigterm_ends_at_once(tmp_path, cache_dir):
    with start_server(tmp_path, cache_dir) as server:
        stream = Stream(server.url, max_tokens=1500)
        assert stream.first.wait(30)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        stream.join(5)
        assert any("shutting down" in line for line in stream.lines[-6:]), stream.lines[-6:]
