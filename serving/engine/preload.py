"""The engine's process is started with the server, so that both import PyTorch and vLLM at the same time instead of one after the other.

A process like any that multiprocessing spawns, but begun before what it shall run is known: it imports, waits, and gets its task over the
pipe that it would have had it from anyway. Nothing is forked, so threads, OpenMP and CUDA are as in a spawned one. Where it cannot stand in
(the environment was changed in a way that matters earlier, more than data has to be handed over), vLLM's own way is taken.
"""

import contextlib
import gc
import importlib
import io
import json
import logging
import logging.config
import multiprocessing.spawn
import multiprocessing.util
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from multiprocessing import popen_spawn_posix, reduction, resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from serving.engine.deferred import SELDOM_USED, UNUSED_BY_THE_CORE, compiling_later, deferring

logger = logging.getLogger("tokenport.engine")

# multiprocessing's inner parts, which have no types. They are what `spawn` is made of, and the same in Python 3.11 to 3.13.
_spawn: Any = multiprocessing.spawn
_util: Any = multiprocessing.util
_reduction: Any = reduction

_READ_AT_IMPORT = ("LD_", "KMP_", "GOMP_", "MKL_", "MALLOC_", "PYTHON", "PYTORCH_", "TORCH")
"""Beginnings of the names of variables that a process which has imported PyTorch no longer looks at."""
_LOG_CONFIG = "VLLM_LOGGING_CONFIG_PATH"
_THREADS = "OMP_NUM_THREADS"
_SIZE = struct.Struct("!Q")


class EarlyProcess:
    """A Python process that imports `modules` and has not been told what to run.

    `environ` is this process's environment, looked at when there is something to run. `begin` names the module and function which calls
    `wait` in the new process, with its environment.
    """

    def __init__(self, modules: Sequence[str], environ: Mapping[str, str], begin: tuple[str, str]) -> None:
        self._environ = environ
        self._environ_then = dict(environ)
        self._executable = _spawn.get_executable()
        self.sentinel, child_w = os.pipe()
        child_r, self.pipe = os.pipe()
        self.is_taken = False
        tracker = resource_tracker.getfd()
        # The search path at once, as multiprocessing does later: the working directory, which Python would put first, may hold anything.
        path = [entry or os.getcwd() for entry in sys.path]
        code = f"import sys; sys.path[:] = {path!r}; from {begin[0]} import {begin[1]}; {begin[1]}({tracker}, {child_r}, {list(modules)!r})"
        # The last word is how multiprocessing knows its own.
        flags = _util._args_from_interpreter_flags()
        command = [self._executable, *flags, "-c", code, "--multiprocessing-fork"]
        try:
            self.pid: int = _util.spawnv_passfds(self._executable, command, [tracker, child_r, child_w])
        finally:
            os.close(child_r)
            os.close(child_w)

    def environ(self) -> dict[str, str]:
        """This process's environment as it is now."""
        return dict(self._environ)

    def imported(self) -> None:
        """Say that this process has imported the same: that changes the environment, of both alike."""
        self._environ_then = dict(self._environ)

    def why_unfit(self) -> str | None:
        """Why it cannot run what a process started now would run; None if it can."""
        if self.is_taken:
            return "it runs something else"
        if _spawn.get_executable() != self._executable:
            return "another executable is asked for"
        then, now = self._environ_then, self._environ
        names = sorted(name for name in then.keys() | now.keys() if name.startswith(_READ_AT_IMPORT) and then.get(name) != now.get(name))
        if names:
            return f"{', '.join(names)} changed"
        try:
            has_ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            has_ended = True  # and somebody has asked before
        return "it has ended" if has_ended else None

    def discard(self) -> None:
        """End it if nobody took it."""
        if self.is_taken:
            return
        self.is_taken = True
        os.close(self.pipe)
        os.close(self.sentinel)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class _Popen(popen_spawn_posix.Popen):
    """multiprocessing's, with the process already there."""

    _fds: list[int]

    def __init__(self, process_obj: BaseProcess, early: EarlyProcess) -> None:
        self._early = early
        super().__init__(process_obj)

    def _launch(self, process_obj: BaseProcess) -> None:
        why = self._early.why_unfit()
        task = self._task(process_obj) if why is None else b""
        if why is None and self._fds:
            why = "it would have to inherit files"
        if why is not None:
            logger.info("the engine's process is started anew", extra={"reason": why})
            self._early.discard()
            self._fds.clear()
            super()._launch(process_obj)  # type: ignore[misc]
            return
        early, self._early.is_taken = self._early, True
        self.pid, self.sentinel = early.pid, early.sentinel
        self.finalizer = _util.Finalize(self, _util.close_fds, [early.sentinel, early.pipe])
        environ = json.dumps(early.environ()).encode()
        # A process that has ended meanwhile is found by its sentinel, as one that ends a moment later.
        with contextlib.suppress(BrokenPipeError), open(early.pipe, "wb", closefd=False) as pipe:
            pipe.write(_SIZE.pack(len(environ)) + environ + task)

    def _task(self, process_obj: BaseProcess) -> bytes:
        data = io.BytesIO()
        set_spawning_popen(self)
        try:
            _reduction.dump(_spawn.get_preparation_data(process_obj.name), data)
            _reduction.dump(process_obj, data)
        finally:
            set_spawning_popen(None)
        return data.getvalue()


def early_context(early: EarlyProcess, on_launch: Callable[[], None]) -> SpawnContext:
    """multiprocessing's `spawn`, whose first process is `early`."""

    class Process(SpawnProcess):
        @staticmethod
        def _Popen(process_obj: BaseProcess) -> Any:
            if early.is_taken:
                return popen_spawn_posix.Popen(process_obj)
            popen = _Popen(process_obj, early)
            on_launch()
            return popen

        def __reduce__(self) -> Any:
            return _as_spawned, (self.__dict__,)

    context = SpawnContext()
    context.Process = Process  # type: ignore[misc]
    return context


def engine_modules(*, on_cpu: bool) -> list[str]:
    """What the process of vLLM's engine core imports before it begins, and what its model's worker needs."""
    return [
        "vllm.v1.engine.core",
        "vllm.v1.worker.cpu_worker" if on_cpu else "vllm.v1.worker.gpu_worker",
        *(["serving.engine.cpu_executor"] if on_cpu else []),
        "serving.engine.plugin",
    ]


def launch_with(early: EarlyProcess, on_launch: Callable[[], None]) -> None:
    """Have vLLM start its engine core as `early`. `on_launch` is called when it has been told what to run."""
    from vllm.v1.engine import utils

    vllms = utils.get_mp_context

    def get_mp_context() -> SpawnContext:
        vllms()  # settles how the engine's own children are started
        return early_context(early, on_launch)

    utils.get_mp_context = get_mp_context


def _as_spawned(state: dict[str, Any]) -> SpawnProcess:
    process = SpawnProcess.__new__(SpawnProcess)
    process.__dict__.update(state)
    return process


def wait(tracker: int, pipe: int, modules: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """The early process's main function: import, wait for the task, run it. Ends silently when the server goes before there is one."""
    # Ctrl-C reaches every process of the terminal; the server decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import setproctitle

        # It has to find the command line before the environment behind it changes; vLLM names its processes later.
        setproctitle.getproctitle()
    if config := environ.get(_LOG_CONFIG):
        logging.config.dictConfig(json.loads(Path(config).read_text()))
    with quick_imports(), compiling_later(environ), deferring(SELDOM_USED, UNUSED_BY_THE_CORE):
        for name in modules:
            # What cannot be imported fails again where it is used, and is told there.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    header = _read(pipe, _SIZE.size)
    new_environ = _read(pipe, _SIZE.unpack(header)[0]) if header else b""
    if not new_environ:
        os._exit(0)
    _adopt(environ, json.loads(new_environ))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _spawn.spawn_main(tracker_fd=tracker, pipe_handle=pipe)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Without the garbage collector, which would look at hundreds of thousands of new objects again and again and find them all in use."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def import_behind(module: str) -> None:
    """Import on a thread, for whoever imports it later."""

    def run() -> None:
        # What cannot be imported fails again where it is used, and is told there.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)

    threading.Thread(target=run, name=f"import {module}", daemon=True).start()


def _read(pipe: int, num_bytes: int) -> bytes:
    """Exactly `num_bytes`, or none if the other end is closed before."""
    parts: list[bytes] = []
    while num_bytes:
        part = os.read(pipe, num_bytes)
        if not part:
            return b""
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _adopt(environ: MutableMapping[str, str], new: Mapping[str, str]) -> None:
    """Make `environ`, this process's own, the one that a process started now would have."""
    threads = new.get(_THREADS)
    has_changed = threads != environ.get(_THREADS)
    for name in environ.keys() - new.keys():
        del environ[name]
    environ.update(new)
    if has_changed and threads is not None and threads.isdigit() and "torch" in sys.modules:
        # Read by OpenMP when it was loaded; vLLM sets it anew for an engine that computes on GPUs.
        sys.modules["torch"].set_num_threads(int(threads))
