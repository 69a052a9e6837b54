"""Servers as processes: their last words, their deadlines, and that nothing of them stays."""

import sys
import time

import psutil
import pytest

from benchmarks.machine.servers import Contestant, ServerFailed, first_model, ledger, reason_in, starting
from serving.errors import BenchmarkError

# Starts a child that outlives a parent which is ended; both sleep.
WITH_CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\ntokenport: first\ntokenport: the reason\nat exit\n", "the reason"),
        ("Traceback\nValueError: wrong\nbye\n", "ValueError: wrong"),
        ("one\ntwo\n\n", "two"),
        ("", ""),
    ],
)
def test_the_last_words_that_say_why(text, reason):
    assert reason_in(text) == reason


def test_one_that_ends_is_told_with_its_code_and_words(tmp_path):
    server = Contestant("it", [sys.executable, "-c", "import sys; print('tokenport: no memory', file=sys.stderr); sys.exit(3)"])
    with (
        pytest.raises(ServerFailed, match="it ended with code 3 before it was ready: no memory"),
        starting(server, "m", tmp_path / "log") as running,
    ):
        running.wait_ready()


def test_only_what_this_start_said_counts(tmp_path):
    log = tmp_path / "log"
    log.write_text("tokenport: from an earlier start\n")
    with (
        pytest.raises(ServerFailed, match="it said nothing in log"),
        starting(Contestant("it", [sys.executable, "-c", "pass"]), "m", log) as running,
    ):
        running.wait_ready()


def test_one_that_never_answers_is_given_up(tmp_path):
    sleeper = Contestant("it", [sys.executable, "-c", "import time; time.sleep(60)"])
    began = time.monotonic()
    with pytest.raises(ServerFailed, match="not ready after 1 s"), starting(sleeper, "m", tmp_path / "log") as running:
        running.wait_ready(deadline_s=1)
    assert time.monotonic() - began < 30
    assert not psutil.pid_exists(running.child.pid) or running.child.poll() is not None


def test_what_it_has_started_ends_with_it(tmp_path):
    with starting(Contestant("it", [sys.executable, "-c", WITH_CHILD]), "m", tmp_path / "log") as running:
        until = time.monotonic() + 30
        while len(running.processes()) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        processes = running.processes()
        assert running.pss_bytes() > 2**20
        assert running.rss_bytes() >= running.pss_bytes() / 2
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert running.pss_bytes() == 0


def test_model_and_port_are_filled_in_and_the_environment_is_the_callers(tmp_path):
    code = "import os, sys; print('tokenport:', sys.argv[1:], os.environ['GIVEN'], os.environ['OWN'], 'HOME' in os.environ)"
    server = Contestant("it", [sys.executable, "-c", code, "{model}", '{"json": 1}'], {"OWN": "b"})
    environ = {"GIVEN": "a", "PATH": "/usr/bin:/bin"}
    with starting(server, "a/model", tmp_path / "log", environ) as running:
        running.child.wait(30)
        assert running.last_words() == """['a/model', '{"json": 1}'] a b False"""


def test_nobody_there_is_no_ledger_and_no_model():
    assert ledger("http://127.0.0.1:1") is None
    with pytest.raises(BenchmarkError, match="/v1/models"):
        first_model("http://127.0.0.1:1")
