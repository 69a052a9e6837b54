"""Notices that the engine stands still, and that it goes on again. Waits for nothing that could hang: reads the engine's pulse.

Load is no standstill: each step of the engine counts, also one of a long prefill. Clients that give up do not make it healthy: while it is
suspected and nothing else runs, a probe of one token keeps asking.
"""

import asyncio
import contextlib
import logging

from serving.api.lifecycle import Lifecycle, State
from serving.engine.interface import Engine
from serving.errors import EngineDead

logger = logging.getLogger("tokenport.watch")

_LOOKS_PER_STALL = 20
_MAX_LOOK_S = 0.5


async def watch(engine: Engine, lifecycle: Lifecycle, stall_s: float) -> None:
    """Keep `lifecycle` between READY and STALLED, until cancelled."""
    probe: asyncio.Task[None] | None = None
    try:
        while True:
            await asyncio.sleep(min(_MAX_LOOK_S, stall_s / _LOOKS_PER_STALL))
            standstill_s = engine.work.standstill_s()
            if standstill_s > stall_s / 2 and engine.work.num_sequences == 0 and (probe is None or probe.done()):
                probe = asyncio.create_task(_probe(engine))
            if lifecycle.state is State.READY and standstill_s > stall_s:
                reason = f"no token for {standstill_s:.0f} s with {engine.work.num_sequences} sequences to work on"
                lifecycle.stall(reason)
                logger.error("the engine stands still", extra={"reason": reason})
            elif lifecycle.state is State.STALLED and standstill_s <= stall_s:
                lifecycle.ready()
                logger.warning("the engine goes on")
    finally:
        if probe is not None:
            probe.cancel()


async def _probe(engine: Engine) -> None:
    # The engine's death is waited for, and told, elsewhere.
    with contextlib.suppress(EngineDead):
        await engine.probe()
