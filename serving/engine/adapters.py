"""Which adapters are registered, and which of them are in the engine's memory: at most so many, the least recently used leaves first.

A sequence holds a lease on its adapter from before it enters the engine until it has left it. An adapter with leases is never put out of
memory, so the engine never has to read a file within a step, where an error would end it. Knows no vLLM: loading is handed in.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from serving.engine.interface import Adapter
from serving.errors import Conflict, InsufficientStorage, NotReady, Overloaded, RequestError, UnknownAdapter

_PLACE_DEADLINE_S = 30.0
"""How long a request waits for an adapter that is in use to be done with: half of what SageMaker gives an answer."""
_PATIENCE_S = 2.0
"""After so long a wait for a place, requests for adapters that are in memory hold back, or the place might never come free."""
_COURTESY_S = 5.0
"""How long each of them holds back: a place whose streams go on for minutes does not come free by it."""

Load = Callable[[str, Path], Awaitable[int]]
"""Brings the adapter of that name from that folder into the engine's memory; returns the engine's id of it, a new one each time."""
Unload = Callable[[int], Awaitable[None]]


@dataclass(eq=False)
class _Entry:
    name: str
    folder: Path
    is_pinned: bool
    engine_id: int | None = None
    loading: "asyncio.Task[None] | None" = None
    num_running: int = 0
    last_used: int = 0
    is_registered: bool = False

    @property
    def can_leave(self) -> bool:
        """Whether its place in memory may be given away."""
        return self.engine_id is not None and not self.num_running and not (self.is_pinned and self.is_registered)


class AdapterStore:
    """The adapters of one engine that has memory for `capacity` of them."""

    def __init__(self, capacity: int, load: Load, unload: Unload) -> None:
        self._capacity = capacity
        self._load = load
        self._unload = unload
        self._entries: dict[str, _Entry] = {}
        # Those with a place in memory, also while they are being loaded, and after a removal until their last sequence has ended.
        self._resident: list[_Entry] = []
        self._uses = itertools.count(1)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def names(self) -> list[str]:
        """Of those registered, in the order of their registration."""
        return [entry.name for entry in self._entries.values() if entry.is_registered]

    def list(self) -> list[Adapter]:
        """Those registered, as they are now."""
        return [
            Adapter(entry.name, str(entry.folder), entry.engine_id is not None, entry.is_pinned, entry.num_running)
            for entry in self._entries.values()
            if entry.is_registered
        ]

    def adopt(self, name: str, folder: Path, engine_id: int | None) -> None:
        """Take over an adapter that the engine started with; `engine_id` is None if it is not in memory."""
        entry = self._entries[name] = _Entry(name, folder, is_pinned=False, engine_id=engine_id, is_registered=True)
        entry.last_used = next(self._uses)
        if engine_id is not None:
            self._resident.append(entry)

    async def register(self, name: str, folder: Path, *, preload: bool, pin: bool) -> None:
        """Make an adapter known, with `preload` or `pin` only once it is in memory. What is registered already takes the new `pin`.

        Raises:
            Conflict: the name is taken by an adapter from another folder.
            RequestError: it could not be loaded; it is not registered then.
        """
        entry = self._entries.get(name)
        if entry is None or not (entry.is_registered or entry.loading or entry.folder == folder):
            entry = self._entries[name] = _Entry(name, folder, is_pinned=pin)
        if entry.folder != folder:
            raise Conflict(f"an adapter {name!r} from {entry.folder} is registered; delete it first", param="name")
        if preload or pin:
            try:
                await self._bring_in(entry)
            except BaseException:
                if not entry.is_registered and not entry.loading and self._entries.get(name) is entry:
                    del self._entries[name]
                raise
        entry.is_pinned = pin
        entry.is_registered = True
        self._notify()

    async def remove(self, name: str) -> None:
        """Forget an adapter. Sequences that run on it finish; its place is free then.

        Raises:
            UnknownAdapter: there is none of that name.
        """
        entry = self._known(name)
        del self._entries[name]
        entry.is_registered = False
        if entry.can_leave:
            await self._put_out(entry)
        else:
            self._notify()

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[int]:
        """The engine's id of an adapter, which is in memory, and stays there, within the block.

        Raises:
            UnknownAdapter: there is none of that name.
            Overloaded: all places in memory were in use for too long.
            InsufficientStorage: all places are taken by pinned adapters.
            NotReady: it was put out of memory and cannot be loaded again.
        """
        if not self._known(name).is_pinned:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._open.wait(), _COURTESY_S)
        entry = self._known(name)
        entry.num_running += 1
        try:
            try:
                await self._bring_in(entry)
            except (Overloaded, InsufficientStorage, NotReady):
                raise
            except RequestError as error:
                raise NotReady(f"the adapter {name!r} cannot be loaded: {error.message}") from error
            assert entry.engine_id is not None  # noqa: S101 - brought in, and leased
            yield entry.engine_id
        finally:
            entry.num_running -= 1
            self._notify()

    def _known(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None or not entry.is_registered:
            known = ", ".join(self.names) or "none"
            raise UnknownAdapter(f"there is no adapter {name!r}; registered: {known}")
        return entry

    async def _bring_in(self, entry: _Entry) -> None:
        entry.last_used = next(self._uses)
        if entry.engine_id is not None:
            return
        if entry.loading is None:
            # A task of its own: a client that goes away must not leave the engine with an adapter that nobody knows of.
            entry.loading = asyncio.create_task(self._load_in_turn(entry))
            entry.loading.add_done_callback(lambda task: _settle(entry, task))
        await asyncio.shield(entry.loading)

    async def _load_in_turn(self, entry: _Entry) -> None:
        await self._take_place(entry)
        try:
            entry.engine_id = await self._load(entry.name, entry.folder)
        except BaseException:
            self._resident.remove(entry)
            raise
        finally:
            self._notify()

    async def _take_place(self, entry: _Entry) -> None:
        """Wait for a free place, or make one, in the order of asking."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(_PLACE_DEADLINE_S), self._turn:
                while len(self._resident) >= self._capacity:
                    if all(other.is_pinned and other.is_registered for other in self._resident):
                        raise InsufficientStorage(
                            f"no memory for the adapter {entry.name!r}: all {self._capacity} places are taken by pinned adapters; "
                            "delete one, or raise max_cpu_loras"
                        )
                    leaving = [other for other in self._resident if other.can_leave]
                    if leaving:
                        await self._put_out(min(leaving, key=lambda other: (other.is_registered, other.last_used)))
                        continue
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), _PATIENCE_S)
                    if time.monotonic() - asked >= _PATIENCE_S:
                        self._open.clear()
                self._resident.append(entry)
        except TimeoutError as error:
            raise Overloaded(
                f"no memory for the adapter {entry.name!r}: all {self._capacity} places were in use for {_PLACE_DEADLINE_S:.0f} s; "
                "try again, or raise max_cpu_loras"
            ) from error
        finally:
            self._open.set()

    async def _put_out(self, entry: _Entry) -> None:
        engine_id, entry.engine_id = entry.engine_id, None
        assert engine_id is not None  # noqa: S101 - only what is in memory can leave
        # Its place is taken until the engine has let go of it, so that the engine never holds more than it has memory for.
        try:
            await self._unload(engine_id)
        finally:
            self._resident.remove(entry)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()


def _settle(entry: _Entry, task: "asyncio.Task[None]") -> None:
    entry.loading = None
    if not task.cancelled():
        # Whoever waited has been told; if nobody did, nobody needs to be.
        task.exception()
