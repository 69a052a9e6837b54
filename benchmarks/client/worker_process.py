"""A client process as the one that started it sees it: what is told to it, what it has said, how it ends. Its own side is `worker.py`."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.client.wire import client_load_from, from_line, record_from, to_line
from benchmarks.measuring.record import ClientLoad, Record

_EXIT_DEADLINE_S = 10.0


@dataclass(slots=True)
class WorkerProcess:
    """One process and what it has said so far."""

    number: int
    process: subprocess.Popen[bytes]
    is_ready: bool = False
    has_ended: bool = False
    is_gone: bool = False
    failure: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    load: ClientLoad | None = None

    def tell(self, message: dict[str, Any]) -> None:
        """A line to it; one that is gone hears nothing, which its own end of stream tells."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(to_line(message))
                self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says, as it comes, to its end."""
        for line in self.process.stdout or ():
            # A process that is killed may leave half a line.
            if line.endswith(b"\n"):
                yield from_line(line)

    def hear(self, message: dict[str, Any] | None) -> None:
        """Take note of one of its messages, None at the end."""
        if message is None:
            self.is_gone = True
        elif "record" in message:
            self.records.append(record_from(message["record"]))
        elif "progress" in message:
            self.counts = message["progress"]
        elif "load" in message:
            self.load = client_load_from(message["load"])
        elif "failed" in message:
            self.failure = message["failed"]
        self.is_ready = self.is_ready or (message is not None and "ready" in message)
        self.has_ended = self.has_ended or (message is not None and "end" in message)

    def what_became_of_it(self) -> str:
        """For one that went before it had told everything."""
        if self.failure is not None:
            return f"client process {self.number} failed: {self.failure}"
        try:
            code: int | None = self.process.wait(_EXIT_DEADLINE_S)
        except subprocess.TimeoutExpired:
            code = None
        how = "did not end in time" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"client process {self.number} {how}; what it measured is lost"


@contextlib.contextmanager
def running_workers(num_workers: int) -> Iterator[list[WorkerProcess]]:
    """So many processes, started. At the end of the context each is given a moment to end by itself, and then killed."""
    command = [sys.executable, "-m", "benchmarks.client.worker"]
    workers: list[WorkerProcess] = []
    try:
        for number in range(num_workers):
            # Its last words, should it fail, go where ours go.
            # In a group of its own, Ctrl-C does not reach it: this process says when it is to stop. Not in a session of its own: Linux
            # shares processors out by session first, and the client would be kept waiting by the server it measures.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
            workers.append(WorkerProcess(number, process))
        yield workers
    finally:
        for worker in workers:
            _end(worker.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_EXIT_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_EXIT_DEADLINE_S)
    if process.stdout is not None:
        process.stdout.close()
