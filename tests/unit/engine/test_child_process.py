"""run_child: lines as they come, a deadline, and an end for the child whatever happens to the caller's callbacks."""

import subprocess
import sys
import time

import pytest

from serving.engine.child_process import run_child, run_module, why_ended


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


def test_a_module_reads_what_it_is_given_and_tells_only_what_is_heard() -> None:
    heard: list[str] = []
    why = run_module("json.tool", {"one": 1}, deadline_s=30, on_line=lambda line: heard.append(line) is None)
    assert (why, heard[:3]) == (None, ["{", '    "one": 1', "}"])


def test_a_module_that_takes_too_long_is_told_so() -> None:
    assert run_module("json.tool", {}, deadline_s=0, on_line=lambda _: False) == "it was not done within 0 s"


@pytest.mark.parametrize(
    ("lines", "status", "told"),
    [
        (["ValueError: no kernel", "more talk"], 1, "ValueError: no kernel"),
        (["talk", "more talk"], 1, "more talk"),
        ([], 3, "exit status 3"),
        (["ValueError: no kernel"], -9, "ended by signal 9, probably out of memory"),
    ],
)
def test_the_reason_is_the_error_else_the_last_line_else_the_status(lines: list[str], status: int, told: str) -> None:
    assert why_ended(lines, status, r"\w+Error\b") == told
