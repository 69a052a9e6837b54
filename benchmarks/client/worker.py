"""One client process: `python -m benchmarks.client.worker`, driven by `worker_process.py` through its standard streams, JSON line by line.

In: the plan with its target; when this process is ready, the origin; `stop`, or the end of the stream, cuts the run off. Out: ready,
progress a few times a second, and at the end every record and the process's own load.
"""

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.driver import Target, drive
from benchmarks.client.openai import HttpTarget, opened_session
from benchmarks.client.progress import Progress
from benchmarks.client.sagemaker import MAX_THREADS, SageMakerTarget
from benchmarks.client.target import TargetSpec
from benchmarks.client.watch import LoopWatch, without_garbage_collection
from benchmarks.client.wire import capabilities_from, from_line, plan_from, spec_from, to_line
from benchmarks.load.plan import Plan
from serving.errors import TokenportError

PROGRESS_INTERVAL_S = 0.25
# A plan with its prompts is one line.
_MAX_LINE_BYTES = 2**40


def main() -> int:
    """Run one part of a plan."""
    _allow_many_connections()
    # Whoever started this process may be gone before it: nobody is left to be told.
    with contextlib.suppress(BrokenPipeError):
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_work())
        except TokenportError as error:
            _tell({"failed": str(error)})
        sys.stdout.flush()
    # A thread that was given up in the middle of a call would be waited for.
    os._exit(0)


async def _work() -> None:
    lines = await _standard_input()
    job = from_line(await lines.readline())
    plan, process = plan_from(job["plan"]), job["process"]
    stop = asyncio.Event()
    progress = Progress()
    async with opened_target(spec_from(job["spec"]), capabilities_from(job["capabilities"]), plan) as target:
        _tell({"ready": True})
        line = await lines.readline()
        if not line:
            return
        origin_s = from_line(line)["origin_s"]
        helpers = (asyncio.create_task(_stop_when_told(lines, stop)), asyncio.create_task(_tell_progress(progress)))
        with without_garbage_collection():
            async with LoopWatch() as watch:
                records = await drive(plan, target, origin_s, progress, stop)
        for helper in helpers:
            helper.cancel()
    # Nothing is encoded while there is something to measure.
    _tell({"progress": progress.counts()})
    for record in records:
        _tell({"record": record})
    _tell({"load": watch.load(process, progress.num_sent)})
    _tell({"end": True})


@contextlib.asynccontextmanager
async def opened_target(spec: TargetSpec, capabilities: Capabilities, plan: Plan) -> AsyncIterator[Target]:
    """The target that `spec` names, ready to be sent to."""
    if spec.api in ("sagemaker", "sagemaker-stream"):
        num_threads = min(plan.concurrency or MAX_THREADS, len(plan.requests))
        target = SageMakerTarget(spec, capabilities, num_threads, plan.request_timeout_s)
        try:
            yield target
        finally:
            target.close()
    else:
        async with opened_session(spec) as session:
            yield HttpTarget(session, spec, capabilities)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _stop_when_told(lines: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await lines.readline()
    stop.set()


async def _tell_progress(progress: Progress) -> None:
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        _tell({"progress": progress.counts()})
        sys.stdout.flush()


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(to_line(message))
    if "record" not in message:
        sys.stdout.buffer.flush()


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
