"""How the engine's processes ended: found in what vLLM 0.32 says of them, and told by signal, exit code and what the kernel counted."""

import re
import signal
from collections.abc import Sequence

from serving.engine.diagnosis.rule import Facts, Rule

_WORKER_DIED = re.compile(r"Worker proc (\S+) died unexpectedly \(exit code: (-?\d+|None)\)")
_CORE_ENDED = re.compile(r"Failed core proc\(s\): \{'([^']+)': (-?\d+)")


def is_kill(exit_code: int) -> bool:
    """Whether a process ended by a signal, other than the one that vLLM sends to those that remain when one has failed."""
    return exit_code < 0 and exit_code != -signal.SIGTERM


def is_lost_worker(text: str) -> bool:
    """Whether `text`, told by an engine process, says that a worker has died."""
    return _WORKER_DIED.search(text) is not None


def exits_of(text: str) -> list[tuple[str, int]]:
    """Processes and their exit codes, in vLLM's words for a worker's end and for the end of engine cores."""
    return [(match[1], int(match[2])) for match in [_WORKER_DIED.search(text), _CORE_ENDED.search(text)] if match and match[2] != "None"]


def how_it_ended(process: str, exit_code: int, facts: Facts) -> str:
    """The end of the process that vLLM calls `process`, in words."""
    who = _called(process)
    if exit_code >= 0:
        return f"{who} ended by itself with exit code {exit_code}; the log says why"
    name = signal.Signals(-exit_code).name if -exit_code in {item.value for item in signal.Signals} else f"signal {-exit_code}"
    how = f"{who} was killed by {name}"
    if exit_code == -signal.SIGBUS:
        return f"{how}: /dev/shm is full or memory is; start the container with --shm-size=1g or more"
    if exit_code != -signal.SIGKILL or facts.oom_killed is False:
        return how
    limit = (
        f"the memory limit is {facts.memory_limit_bytes / 2**30:.1f} GiB" if facts.memory_limit_bytes else "the machine's memory was full"
    )
    advice = "give it more memory, or set a smaller kv_cache_memory_bytes or gpu_memory_utilization"
    if facts.oom_killed:
        return f"{how}, by the kernel, which was out of memory ({limit}): {advice}"
    return f"{how}: if nobody did that on purpose, the kernel was out of memory: {advice}"


def _called(process: str) -> str:
    rank = re.fullmatch(r"VllmWorker-(\d+)", process)
    return f"the worker process of rank {rank[1]}" if rank else "the engine core" if process.startswith("EngineCore") else process


def _died(match: re.Match[str], facts: Facts) -> str:
    # The monitor may see a process end before its exit code can be had.
    return f"{_called(match[1])} died" if match[2] == "None" else how_it_ended(match[1], int(match[2]), facts)


EXIT_RULES: Sequence[Rule] = ((_WORKER_DIED, _died), (_CORE_ENDED, _died))
