"""Gathers what can be known about a failed engine: what its processes told, how they ended, whether the kernel ran out of memory.

`diagnosis/` makes the line of it. Counters are read when the engine starts and again when it has failed: only what rose counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.engine.diagnosis.exception_text import text_of
from serving.engine.diagnosis.exits import is_lost_worker
from serving.engine.diagnosis.line import death, start_failure
from serving.engine.diagnosis.rule import Facts
from serving.engine.progress import ProgressListener
from serving.errors import StartError

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_NO_LIMIT_BYTES = 2**60
"""cgroup v1 says "no limit" as the largest number of whole pages."""
_RELATED_S = 10.0
"""What was told longer before a death had not caused it: an engine outlives the failure of a single task."""


class Postmortem:
    """Made before the engine starts, asked when it has failed."""

    def __init__(self, engine_settings: Mapping[str, Any], *, on_cpu: bool, progress: ProgressListener) -> None:
        self._engine_settings = engine_settings
        self._on_cpu = on_cpu
        self._progress = progress
        self._oom_kills = num_oom_kills()

    def start_error(self, error: Exception, exit_codes: Mapping[str, int]) -> StartError:
        """The error to raise for `error`, which ended the start in this process. `exit_codes`: see `start_failure`."""
        return StartError(start_failure([*self._progress.errors(), text_of(error)], exit_codes, self._facts()))

    def has_lost_worker(self) -> bool:
        """Whether a worker process was found dead: the engine cannot go on without it, though it may take its time to say so."""
        return any(is_lost_worker(text) for text in self._progress.errors(_RELATED_S))

    def death(self, exit_codes: Mapping[str, int]) -> str:
        """The line for an engine that died while serving; see `diagnosis/line.py`."""
        return death(self._progress.errors(_RELATED_S), exit_codes, self._facts())

    def _facts(self) -> Facts:
        kills = num_oom_kills()
        oom_killed = None if kills is None or self._oom_kills is None else kills > self._oom_kills
        return Facts(self._on_cpu, oom_killed, memory_limit_bytes(), self._engine_settings)


def num_oom_kills(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int | None:
    """How many processes of this container the kernel's OOM killer has ended so far: the counter `oom_kill` of cgroup v2 or v1; None if
    neither can be read."""
    for folder in _memory_cgroups(cgroups, own):
        for name in ("memory.events", "memory.oom_control"):
            fields = dict(line.split(maxsplit=1) for line in _read(folder / name).splitlines() if " " in line)
            if "oom_kill" in fields:
                return int(fields["oom_kill"])
    return None


def memory_limit_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int | None:
    """The container's memory limit; None where there is none."""
    limits = []
    for folder in _memory_cgroups(cgroups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def _memory_cgroups(cgroups: Path, own: Path) -> list[Path]:
    """The folders where this process's memory may be accounted, the nearest first. A container mostly sees its own as the root."""
    folders = []
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            root = cgroups / "memory" if controllers else cgroups
            folders += [root / path.lstrip("/"), root]
    return folders


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
