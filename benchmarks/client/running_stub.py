"""The stub server as a process of its own, for a context."""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.errors import BenchmarkError

_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Stub:
    """A stub that runs. `pid` is its process."""

    url: str
    pid: int

    def received(self) -> list[dict[str, Any]]:
        """The requests it was sent to generate, in order: `at_s` on the monotonic clock, and `body` without its `stub` field."""
        with urllib.request.urlopen(f"{self.url}/stub/requests", timeout=_DEADLINE_S) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)
            return found


@contextlib.contextmanager
def running_stub(**script: Any) -> Iterator[Stub]:
    """Start a stub with this script (fields of `stub.Script` and `stub.Behaviour`), yield it once it listens, and end it."""
    command = [sys.executable, "-m", "benchmarks.client.stub", "--script", json.dumps(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            url = re.search(r"http://\S+", line)
            if url is None:
                raise BenchmarkError(f"the stub server did not start with {script}")
            yield Stub(url[0], process.pid)
        finally:
            process.kill()
            process.wait(_DEADLINE_S)
