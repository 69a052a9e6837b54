"""How engine processes ended is known when they have: also in the moment between the closing of their pipe and their exit code."""

import multiprocessing
import os
import signal
import time
from multiprocessing import connection

from serving.engine.failures import join_ended


class Dying:
    """A process that has closed its pipe; its exit code comes when it is waited for."""

    def __init__(self) -> None:
        self.sentinel, closed = os.pipe()
        os.close(closed)
        self.exitcode = None

    def join(self, timeout):
        assert timeout <= 5
        self.exitcode = -9


def test_one_that_has_closed_its_pipe_is_waited_for():
    dying = Dying()
    join_ended([dying])
    assert dying.exitcode == -9
    os.close(dying.sentinel)


def test_one_that_runs_is_not_waited_for():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    try:
        started = time.monotonic()
        join_ended([process])
        assert time.monotonic() - started < 30
        assert process.exitcode is None
        os.kill(process.pid, signal.SIGKILL)
        assert connection.wait([process.sentinel], timeout=30)
        join_ended([process])
        assert process.exitcode == -9
    finally:
        process.kill()
        process.join()
