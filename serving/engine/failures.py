"""Where vLLM's child processes begin, so that why one of them fails reaches the server in one line and nothing but JSON reaches the log.

vLLM logs the exception that ends a process and hands its parent a poorer text, or none: "see stack trace above". A filter on the loggers
of these two modules sends each such exception to the server. An engine core that fails re-raises, which multiprocessing prints as text.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from serving.engine.progress import send_error

_LOGGERS = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
_EXIT_DEADLINE_S = 1.0
"""How long a worker that closed its pipe may take to be a process that has ended, with an exit code."""

originals: dict[str, Callable[..., Any]] = {}
"""vLLM's own functions, by the names of those here that stand in for them."""


def run_engine_core(*args: Any, **kwargs: Any) -> None:
    """Stands in for `EngineCoreProc.run_engine_core`, the main function of the engine core's process."""
    threading.Thread(target=_end_with_parent, name="watch the server", daemon=True).start()
    _begin(kwargs["vllm_config"])
    try:
        originals["run_engine_core"](*args, **kwargs)
    except Exception as error:
        raise SystemExit(1) from error  # logged and told already


def worker_main(*args: Any, **kwargs: Any) -> None:
    """Stands in for `WorkerProc.worker_main`, the main function of a worker's process."""
    _begin(kwargs["vllm_config"])
    originals["worker_main"](*args, **kwargs)


def wait_for_ready(unready: Sequence[Any]) -> Any:
    """Stands in for `WorkerProc.wait_for_ready`, which does not look at how a worker that never got ready ended."""
    try:
        return originals["wait_for_ready"](unready)
    except Exception:
        for name, code in _ended([handle.proc for handle in unready]):
            # In the words of vLLM's own monitor, which watches workers only once they are ready.
            logging.getLogger(_LOGGERS[1]).error("Worker proc %s died unexpectedly (exit code: %s)", name, code)
        raise


def join_ended(processes: Sequence[BaseProcess]) -> None:
    """Wait until those that have closed their pipes have an exit code too."""
    for process in processes:
        if connection.wait([process.sentinel], timeout=0):
            process.join(_EXIT_DEADLINE_S)


def _end_with_parent() -> None:
    """A server that is killed tells nobody: its engine would go on and hold the device's memory for ever. (Workers watch the core.)"""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _ended(processes: Sequence[BaseProcess]) -> list[tuple[str, int]]:
    """Names and exit codes of those that were killed. A signal closes the pipe a moment before the process can be waited for."""
    for process in processes:
        process.join(_EXIT_DEADLINE_S / len(processes))
    return [(process.name, process.exitcode) for process in processes if process.exitcode is not None and process.exitcode < 0]


def _begin(vllm_config: Any) -> None:
    from vllm.logger import configure_logging

    from serving.engine.plugin import register

    # vLLM's first step too, done before the plugin's imports, some of which log.
    if vllm_config.logging_config:
        configure_logging(vllm_config.logging_config)
    # A spawned process has loaded no plugin yet: this puts what stands in, and the originals, into their places here too.
    register()
    teller = _Teller(vllm_config.additional_config)
    for name in _LOGGERS:
        told_by = logging.getLogger(name)
        for old in [one for one in told_by.filters if isinstance(one, _Teller)]:
            told_by.removeFilter(old)
        told_by.addFilter(teller)


class _Teller(logging.Filter):
    """Sends what is logged as an error to the server, and lets everything pass. A handler would do as well, had vLLM not the habit of
    configuring its loggers anew in these processes, which keeps filters and drops handlers."""

    def __init__(self, additional_config: Any) -> None:
        super().__init__()
        self._additional_config = additional_config

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            send_error(self._additional_config, error or RuntimeError(record.getMessage()))
        return True
