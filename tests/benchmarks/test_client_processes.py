"""The client's processes: one clock for all, progress, a process that is killed, Ctrl-C, and a parent that goes away."""

import itertools
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import psutil
import pytest

from benchmarks.client.processes import run_plan
from benchmarks.load.plan import Plan, Request
from tests.benchmarks.driving import MODEL, closed, opened, spec_of
from tests.benchmarks.stub import running_stub


@pytest.fixture(scope="module")
def url():
    with running_stub() as stub:
        yield stub.url


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "benchmarks.client.worker" in child.cmdline()]


class Watching:
    """Keeps the progress that it is told, and does something once `num_done` answers are whole."""

    def __init__(self, num_done: int = 0, then=None):
        self.seen: list[dict[str, int]] = []
        self.num_done = num_done
        self.then = then

    def __call__(self, **counts: int) -> None:
        self.seen.append(counts)
        if self.then is not None and counts["done"] >= self.num_done:
            then, self.then = self.then, None
            then()


def test_two_processes_share_one_clock_and_every_request_has_one_record(url):
    watching, origins = Watching(), []
    plan = opened([0.1 * number for number in range(10)], max_tokens=4)
    measured = run_plan(plan, spec_of(url, itl_s=0.05), 2, watching, capabilities=MODEL, on_start=origins.append)
    assert [record.number for record in measured.records] == list(range(10))
    assert all(record.is_whole for record in measured.records)
    late_s = [record.sent_s - record.scheduled_s for record in measured.records]
    assert min(late_s) >= 0
    # Clocks that do not agree make all of them late, a busy machine some.
    assert statistics.median(late_s) < 0.5
    assert (measured.interrupted, measured.lost, origins) == (False, [], [measured.origin_s])
    assert [(load.process, load.num_requests) for load in measured.client] == [(0, 5), (1, 5)]
    assert all(len(load.loop_lag_s) > 10 and 0 < load.cpu_share < 1.5 and load.wall_s > 0.2 for load in measured.client)
    assert watching.seen[-1] == {"sent": 10, "done": 10, "failed": 0, "output_tokens": 40}
    assert len(watching.seen) >= 4
    assert workers() == []


def test_a_process_that_is_killed_is_told_and_the_others_are_kept(url):
    killed: list[int] = []

    def kill_one() -> None:
        killed.append(workers()[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    measured = run_plan(closed(20, 2), spec_of(url, itl_s=0.02), 2, Watching(2, kill_one), capabilities=MODEL)
    assert killed
    assert len(measured.lost) == 1
    assert "was killed by signal 9; what it measured is lost" in measured.lost[0]
    kinds = [record.error_kind for record in measured.records]
    assert (kinds.count("lost"), kinds.count(None)) == (10, 10)
    assert len(measured.client) == 1
    assert [record.number for record in measured.records] == list(range(20))


def test_a_stop_keeps_what_was_measured(url):
    stop = threading.Event()
    plan = closed(40, 2, request_timeout_s=60)
    measured = run_plan(plan, spec_of(url, itl_s=0.02), 1, Watching(2, stop.set), stop, MODEL)
    kinds = [record.error_kind for record in measured.records]
    assert measured.interrupted
    assert kinds.count(None) >= 2
    assert kinds.count("not_sent") >= 2
    assert set(kinds) <= {None, "broken", "not_sent"}


def test_a_stop_before_the_start_sends_next_to_nothing(url):
    stop = threading.Event()
    stop.set()
    measured = run_plan(closed(40, 2), spec_of(url, ttft_s=1.0), 1, None, stop, MODEL)
    assert (measured.interrupted, measured.lost) == (True, [])
    assert {record.error_kind for record in measured.records} <= {"broken", "not_sent"}
    assert sum(record.sent_s is not None for record in measured.records) <= 2


INTERRUPTED = """
import sys
from benchmarks.client.processes import run_plan
from tests.benchmarks.driving import MODEL, closed, spec_of
def tell(**counts):
    print(counts["done"], flush=True)
measured = run_plan(closed(400, 2), spec_of(sys.argv[1], itl_s=0.02), 2, tell, capabilities=MODEL)
kinds = [record.error_kind for record in measured.records]
print("measured", measured.interrupted, kinds.count(None), len(kinds), measured.lost, flush=True)
"""


def test_ctrl_c_keeps_what_was_measured(url):
    command = [sys.executable, "-c", INTERRUPTED, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= 2:
                break
        # As a terminal does: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        last = process.stdout.read().splitlines()[-1].split()
        assert process.wait(30) == 0
    assert last[:2] == ["measured", "True"]
    assert 2 <= int(last[2]) < 400
    assert last[3:] == ["400", "[]"]


def test_processes_end_when_the_one_that_started_them_is_gone(url):
    command = [sys.executable, "-c", INTERRUPTED, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = psutil.Process(process.pid).children()
        process.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_conversations_over_processes_keep_their_order(url):
    turns = tuple(Request(number, "q", 2, conversation=number % 4, think_s=0.05) for number in range(12))
    measured = run_plan(Plan(turns, concurrency=4), spec_of(url, "chat"), 2, capabilities=MODEL)
    assert all(record.is_whole for record in measured.records)
    for first in range(4):
        turns_of_one = measured.records[first::4]
        assert all(later.sent_s >= earlier.ended_s + 0.05 for earlier, later in itertools.pairwise(turns_of_one))


def test_a_target_that_was_not_probed_is(url):
    started_s = time.monotonic()
    measured = run_plan(closed(1), spec_of(url))
    assert measured.records[0].is_whole
    assert time.monotonic() - started_s < 60
