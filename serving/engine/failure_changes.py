"""What Tokenport changes in vLLM so that failures are told: the main functions of its processes, their ends, and want of memory."""

from collections.abc import Callable
from typing import Any

from serving.engine.replacing import replace


def install() -> None:
    """Make the changes; see `plugin.py`."""
    _tell_failures()
    _tell_how_a_core_ended()
    _tell_what_memory_lacks()


def _tell_failures() -> None:
    """What ends an engine process is lost on its way to the server, or printed as plain text; see `failures.py`.

    The main functions are replaced, by functions that a spawned process finds by their own names, where the process is started.
    """
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    from serving.engine import failures

    for owner, ours in (
        (EngineCoreProc, failures.run_engine_core),
        (WorkerProc, failures.worker_main),
        (WorkerProc, failures.wait_for_ready),
    ):
        name = ours.__name__
        if name not in failures.originals:
            failures.originals[name] = getattr(owner, name)
            setattr(owner, name, staticmethod(ours))


def _tell_how_a_core_ended() -> None:
    """A process that is killed closes its pipe a moment before it has an exit code. vLLM asks in between, and finds that none has ended."""
    from vllm.v1.engine.utils import CoreEngineProcManager

    from serving.engine.failures import join_ended

    def joining(original: Callable[..., Any]) -> Callable[..., Any]:
        def finished_procs(self: Any) -> dict[str, int]:
            join_ended(self.processes)
            found: dict[str, int] = original(self)
            return found

        return finished_procs

    replace(CoreEngineProcManager, "finished_procs", joining)


def _tell_what_memory_lacks() -> None:
    """Where the weights leave nothing for the KV cache, vLLM says so without a number. The CPU's worker gives them by itself."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return
    from vllm.v1.worker.gpu_worker import Worker

    from serving.engine.diagnosis.memory import memory_shortage

    def measuring(original: Callable[..., Any]) -> Callable[..., Any]:
        def determine_available_memory(self: Any) -> int:
            available_bytes: int = original(self)
            if available_bytes <= 0:
                raise ValueError(memory_shortage(self.requested_memory, available_bytes))
            return available_bytes

        return determine_available_memory

    replace(Worker, "determine_available_memory", measuring)
