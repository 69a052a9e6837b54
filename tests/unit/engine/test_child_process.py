"""run_child: lines as they come, a deadline, and an end for the child whatever happens to the caller's callbacks."""

import subprocess
import sys
import time

import pytest

from serving.engine.child_process import run_child


def _nothing(*_: str) -> None:
    pass


def test_gives_each_line_and_the_exit_status() -> None:
    lines: list[str] = []
    script = "import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr); sys.stderr.write('no end'); sys.exit(3)"
    status = run_child([sys.executable, "-c", script], deadline_s=30, on_line=lines.append, on_silence=_nothing)
    assert (status, lines) == (3, ["one", "two", "no end"])


def test_a_signal_is_a_negative_status() -> None:
    script = "import os; os.kill(os.getpid(), 9)"
    assert run_child([sys.executable, "-c", script], deadline_s=30, on_line=_nothing, on_silence=_nothing) == -9


def test_the_deadline_ends_the_child() -> None:
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_child([sys.executable, "-c", "import time; time.sleep(60)"], deadline_s=0.2, on_line=_nothing, on_silence=_nothing)
    assert time.monotonic() - start < 5


def test_what_a_callback_raises_ends_the_child_and_is_passed_on() -> None:
    def cancel() -> None:
        raise KeyError("cancelled")

    start = time.monotonic()
    with pytest.raises(KeyError, match="cancelled"):
        run_child([sys.executable, "-c", "import time; time.sleep(60)"], deadline_s=30, on_line=_nothing, on_silence=cancel)
    assert time.monotonic() - start < 5
