"""A draft that is dropped is closed, whatever happens meanwhile."""

import asyncio
import contextlib

from serving.cascade.draft import Draft
from tests.unit.cascade.scripted import Chunks


class SlowToCancel(Chunks):
    """Takes a moment to stop waiting, as a stream does that has to tell the other side."""

    def __init__(self) -> None:
        super().__init__([asyncio.Event()])
        self.closed = asyncio.Event()

    async def __anext__(self) -> str:
        try:
            return await super().__anext__()
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            raise

    async def aclose(self) -> None:
        self.closed.set()


async def test_a_client_that_leaves_while_its_draft_is_dropped_leaves_no_stream_open():
    chunks = SlowToCancel()
    draft = Draft(chunks)
    await draft.look_ahead("chat", 1, asyncio.get_running_loop().time() + 0.01)
    dropping = asyncio.ensure_future(draft.aclose())
    await asyncio.sleep(0.005)
    dropping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await dropping
    await asyncio.wait_for(chunks.closed.wait(), 5)
