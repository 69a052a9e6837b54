"""Run one command: its output line by line as it comes, a deadline, and no way to outlive the caller's interest in it.

Standard output and standard error arrive on one pipe; lines are never mixed as long as each is one write.
The child's standard input is a pipe that nothing is written to: a child that watches it sees the end of this process.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# How long the caller waits at most between two looks at the child; small enough for a person, large enough to cost nothing.
_LOOK_S = 0.5
_NUM_LAST_LINES = 40
_MAX_CHARS = 500


def run_child(
    command: Sequence[str], *, cwd: Path | None = None, deadline_s: float, on_line: Callable[[str], None], on_silence: Callable[[], None]
) -> int:
    """Run `command` to its end and return its exit status, negative for a signal.

    `on_line` gets each line without its end; `on_silence` is called whenever half a second passed without output.
    Whatever either of them raises kills the child and is passed on. Raises `subprocess.TimeoutExpired` after `deadline_s`.
    """
    give_up = time.monotonic() + deadline_s
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            _follow(process, give_up, on_line, on_silence)
            return process.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise subprocess.TimeoutExpired(command, deadline_s) from error
        except BaseException:
            process.kill()
            raise


def run_module(module: str, spec: Mapping[str, Any], *, deadline_s: float, on_line: Callable[[str], bool]) -> str | None:
    """Run `python -m MODULE SPEC_FILE`, a module of this project that reads `spec` as JSON. `on_line` says whether a line was for it.

    Returns None if it ended well, else why it did not, in one line.
    """
    last: deque[str] = deque(maxlen=_NUM_LAST_LINES)

    def keep(line: str) -> None:
        if not on_line(line) and line.strip():
            last.append(line.strip())

    with tempfile.TemporaryDirectory(prefix="tokenport-") as folder:
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", module, str(file)]
        try:
            status = run_child(command, cwd=Path(__file__).parents[2], deadline_s=deadline_s, on_line=keep, on_silence=lambda: None)
        except subprocess.TimeoutExpired:
            return f"it was not done within {deadline_s:.0f} s"
    return None if status == 0 else why_ended(list(last), status, r"[\w.]*(Error|Exception)\b")


def why_ended(lines: Sequence[str], status: int, error: str) -> str:
    """Why a child failed: its last line that begins as the regular expression `error` says, else its last; a signal by number, since a
    killed child says nothing."""
    if status < 0:
        return f"ended by signal {-status}" + (", probably out of memory" if status == -signal.SIGKILL else "")
    errors = [line for line in lines if re.match(error, line)]
    return (errors or lines or [f"exit status {status}"])[-1][:_MAX_CHARS]


def _follow(process: subprocess.Popen[bytes], give_up: float, on_line: Callable[[str], None], on_silence: Callable[[], None]) -> None:
    """Hand out lines until the child closes its output."""
    if process.stdout is None:
        raise ValueError("the child needs a pipe as standard output")
    pipe = process.stdout.fileno()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(process.args, 0)
            if not selector.select(_LOOK_S):
                on_silence()
                continue
            chunk = os.read(pipe, 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines if chunk else [rest]:
                on_line(line.decode(errors="replace").rstrip("\r"))
            if not chunk:
                return
