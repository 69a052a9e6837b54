"""Plans carried out from this process, for commands that look at the server and not at the client's speed."""

import asyncio
import time
from collections.abc import Callable, Sequence

from benchmarks.client import driver
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.openai import HttpTarget, opened_session
from benchmarks.client.probe import probe
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan
from benchmarks.measuring.record import Record


def drive_at(spec: TargetSpec) -> Callable[[Plan], Sequence[Record]]:
    """What carries a plan out against `spec`. The server is asked what it takes with the first plan, not before."""
    found: list[Capabilities] = []

    def drive(plan: Plan) -> Sequence[Record]:
        if not found:
            found.append(asyncio.run(probe(spec)))
        return asyncio.run(_drive(plan, spec, found[0]))

    return drive


async def _drive(plan: Plan, spec: TargetSpec, capabilities: Capabilities) -> list[Record]:
    async with opened_session(spec) as session:
        origin_s = time.monotonic()
        return await driver.drive(plan, HttpTarget(session, spec, capabilities, origin_s), origin_s)
