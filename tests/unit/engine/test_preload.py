"""The process that is started before there is anything for it to run."""

import contextlib
import gc
import multiprocessing.spawn
import os
import signal
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from serving.engine.preload import EarlyProcess, early_context, import_behind, quick_imports

BEGIN = ("serving.__main__", "begin_engine_process")


@pytest.fixture
def environ() -> dict[str, str]:
    return dict(os.environ)


@pytest.fixture
def early(environ: dict[str, str]) -> Iterator[EarlyProcess]:
    process = EarlyProcess(["wave"], environ, BEGIN)
    yield process
    process.discard()


def run(early: EarlyProcess, target, *args):
    """Start `target` as `early`'s context does."""
    launched = []
    process = early_context(early, lambda: launched.append(True)).Process(target=target, args=args, name="Engine")
    process.start()
    return process, launched


# What the processes run. Each tells by its exit code, the one thing that needs no file.


def say_what_was_imported() -> None:
    sys.exit(40 + ("wave" in sys.modules))


def say_variable(name: str, value: str | None) -> None:
    sys.exit(50 + (os.environ.get(name) == value))


def be_interrupted() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        sys.exit(1)
    sys.exit(60)


def say_name() -> None:
    sys.exit(70 + (multiprocessing.current_process().name == "Engine" and multiprocessing.parent_process() is not None))


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise SystemExit(3)


def test_it_runs_what_it_is_given_with_its_modules_imported_as_this_processs_child(early):
    process, launched = run(early, say_what_was_imported)
    assert process.pid == early.pid
    assert launched == [True]
    assert psutil.Process(process.pid).ppid() == os.getpid()
    process.join(20)
    assert process.exitcode == 41


def test_it_knows_its_name_and_its_parent(early):
    process, _ = run(early, say_name)
    process.join(20)
    assert process.exitcode == 71


@pytest.mark.parametrize(("target", "code"), [(fail, 3), (be_killed, -signal.SIGKILL), (be_interrupted, 60)])
def test_its_end_is_seen_as_that_of_any_process(early, target, code):
    process, _ = run(early, target)
    assert multiprocessing.connection.wait([process.sentinel], 20)
    process.join(5)
    assert process.exitcode == code


@pytest.mark.parametrize("value", ["new", None])
def test_it_has_the_environment_of_when_it_was_told_what_to_run(environ, value):
    environ["TOKENPORT_TEST"] = "old"
    process = EarlyProcess([], environ, BEGIN)
    if value is None:
        del environ["TOKENPORT_TEST"]
    else:
        environ["TOKENPORT_TEST"] = value
    running, _ = run(process, say_variable, "TOKENPORT_TEST", value)
    running.join(20)
    assert running.exitcode == 51


@pytest.mark.parametrize("name", ["LD_PRELOAD", "KMP_AFFINITY", "PYTHONPATH", "TORCHINDUCTOR_COMPILE_THREADS"])
def test_a_variable_that_is_read_at_import_makes_it_unfit(early, environ, name):
    assert early.why_unfit() is None
    environ[name] = "changed"
    assert early.why_unfit() == f"{name} changed"
    # What importing the same modules changes, it changes there too.
    early.imported()
    assert early.why_unfit() is None


def test_another_process_is_started_where_it_is_unfit(early, environ):
    environ["MKL_NUM_THREADS"] = "7"
    first = early.pid
    process, launched = run(early, say_name)
    assert process.pid != first
    assert launched == [True]
    process.join(20)
    assert process.exitcode == 71
    assert not psutil.pid_exists(first)


def test_another_process_is_started_where_it_has_ended(early):
    os.kill(early.pid, signal.SIGKILL)
    psutil.Process(early.pid).wait(5)
    process, _ = run(early, say_name)
    process.join(20)
    assert process.exitcode == 71


def test_another_process_is_started_for_what_has_to_inherit_files(early):
    reader, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
    first = early.pid
    process, _ = run(early, send_hello, writer)
    writer.close()
    assert process.pid != first
    assert reader.poll(20)
    assert reader.recv() == "hello"
    process.join(20)


def send_hello(writer) -> None:
    writer.send("hello")


def test_the_second_process_of_the_same_context_is_spawned_as_usual(early):
    context = early_context(early, lambda: None)
    first, second = context.Process(target=fail), context.Process(target=say_what_was_imported)
    for process in (first, second):
        process.start()
    for process in (first, second):
        process.join(20)
    assert (first.exitcode, second.exitcode) == (3, 40)


def test_discarding_ends_it_unless_it_runs_something(early):
    early.discard()
    assert not psutil.pid_exists(early.pid)
    early.discard()


def test_what_cannot_be_imported_is_left_to_who_needs_it(environ):
    process, _ = run(EarlyProcess(["no_such_module", "wave"], environ, BEGIN), say_what_was_imported)
    process.join(20)
    assert process.exitcode == 41


def test_it_ends_silently_when_its_parent_is_killed(tmp_path):
    """And at Ctrl-C, which reaches it too, it waits for what its parent does."""
    code = (
        "import os, time; from serving.engine.preload import EarlyProcess;"
        f"early = EarlyProcess(['wave'], os.environ, {BEGIN!r}); print(early.pid, flush=True); time.sleep(60)"
    )
    import subprocess

    with (tmp_path / "said").open("w+") as said:
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=said, text=True)
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        deadline = time.monotonic() + 10
        while not any("wave" in file.path for file in child.memory_maps()) and time.monotonic() < deadline:
            if child.status() == psutil.STATUS_SLEEPING and child.cpu_times().user > 0.1:
                break  # imported, and waiting
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert child.is_running()
        parent.kill()
        parent.wait()
        parent.stdout.close()
        _, alive = psutil.wait_procs([child], timeout=10)
        assert not alive
        said.seek(0)
        assert said.read() == ""


def test_quick_imports_pauses_the_garbage_collector():
    assert gc.isenabled()
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_importing_behind_leaves_what_fails_to_who_needs_it(recwarn):
    sys.modules.pop("wave", None)
    import_behind("no_such_module")
    import_behind("wave")
    deadline = time.monotonic() + 10
    while "wave" not in sys.modules:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not recwarn.list
