"""Run one command: its output line by line as it comes, a deadline, and no way to outlive the caller's interest in it.

Standard output and standard error arrive on one pipe; lines are never mixed as long as each is one write.
The child's standard input is a pipe that nothing is written to: a child that watches it sees the end of this process.
"""

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# How long the caller waits at most between two looks at the child; small enough for a person, large enough to cost nothing.
_LOOK_S = 0.5


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
