"""Places in memory, leases on them, and who leaves: with a loader of the test's own."""

import asyncio
from pathlib import Path

import pytest

from serving.engine import adapters as module
from serving.engine.adapters import AdapterStore
from serving.errors import Conflict, InsufficientStorage, InvalidRequest, NotReady, Overloaded, UnknownAdapter


class Memory:
    """What the engine would hold: engine id -> name."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}
        self.most = 0
        self.num_loads = 0
        self.refused: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, name: str, folder: Path) -> int:
        await self.gate.wait()
        if name in self.refused:
            raise InvalidRequest("src: bad")
        self.num_loads += 1
        self.held[self.num_loads] = name
        self.most = max(self.most, len(self.held))
        return self.num_loads

    async def unload(self, engine_id: int) -> None:
        await asyncio.sleep(0)
        del self.held[engine_id]

    @property
    def names(self) -> set[str]:
        return set(self.held.values())


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def store(memory: Memory) -> AdapterStore:
    return AdapterStore(2, memory.load, memory.unload)


async def put(store: AdapterStore, *names: str, preload: bool = True, pin: bool = False) -> None:
    for name in names:
        await store.register(name, Path("/adapters") / name, preload=preload, pin=pin)


async def use(store: AdapterStore, name: str, until: asyncio.Event | None = None) -> None:
    async with store.lease(name):
        if until is not None:
            await until.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_least_recently_used_leaves(store, memory):
    await put(store, "a", "b")
    await use(store, "a")
    await put(store, "c")
    assert memory.names == {"a", "c"}


async def test_what_left_is_loaded_again_under_a_new_id(store, memory):
    await put(store, "a", "b", "c")
    async with store.lease("a") as engine_id:
        assert memory.held[engine_id] == "a"
        assert engine_id == 4


async def test_an_adapter_in_use_is_never_put_out(store, memory):
    done = asyncio.Event()
    await put(store, "a", "b")
    user = asyncio.create_task(use(store, "a", done))
    await settle()
    await use(store, "b")
    await put(store, "c", "d")
    assert memory.names == {"a", "d"}
    done.set()
    await user


async def test_a_place_is_waited_for_while_all_are_in_use(store, memory):
    done = asyncio.Event()
    await put(store, "a", "b")
    users = [asyncio.create_task(use(store, name, done)) for name in ("a", "b")]
    await settle()
    third = asyncio.create_task(put(store, "c"))
    await settle()
    assert not third.done()
    done.set()
    await asyncio.gather(third, *users)
    assert "c" in memory.names
    assert memory.most == 2


async def test_waiting_for_a_place_has_an_end(store, memory, monkeypatch):
    monkeypatch.setattr(module, "_PLACE_DEADLINE_S", 0.05)
    done = asyncio.Event()
    await put(store, "a", "b")
    users = [asyncio.create_task(use(store, name, done)) for name in ("a", "b")]
    await settle()
    with pytest.raises(Overloaded, match="in use for"):
        await put(store, "c")
    assert store.names == ["a", "b"]
    done.set()
    await asyncio.gather(*users)
    await put(store, "c")


async def test_those_in_memory_cannot_keep_another_out_for_ever(store, memory, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    await put(store, "a", "b")
    stop = False

    async def keep_using(name: str) -> None:
        while not stop:
            async with store.lease(name):
                await asyncio.sleep(0.01)

    # Two users of each, out of step, so that neither is ever out of use.
    users = []
    for name in ("a", "b", "a", "b"):
        users.append(asyncio.create_task(keep_using(name)))
        await asyncio.sleep(0.003)
    async with asyncio.timeout(5):
        await put(store, "c")
    stop = True
    await asyncio.gather(*users)


async def test_pinned_ones_stay_and_a_memory_full_of_them_says_so(store, memory):
    await put(store, "a", pin=True)
    await put(store, "b", "c")
    assert memory.names == {"a", "c"}
    await put(store, "c", pin=True)
    with pytest.raises(InsufficientStorage, match="all 2 places"):
        await use(store, "b")
    with pytest.raises(InsufficientStorage):
        await put(store, "d")
    assert store.names == ["a", "b", "c"]


async def test_pinning_loads(store, memory):
    await put(store, "a", preload=False, pin=True)
    assert memory.names == {"a"}


async def test_a_removed_adapter_leaves_memory_at_once_if_idle(store, memory):
    await put(store, "a")
    await store.remove("a")
    assert memory.names == set()
    assert store.names == []


async def test_a_removed_adapter_keeps_its_place_until_its_last_sequence_has_ended(store, memory):
    done = asyncio.Event()
    await put(store, "a", "b", pin=True)
    user = asyncio.create_task(use(store, "a", done))
    await settle()
    await store.remove("a")
    with pytest.raises(UnknownAdapter, match="registered: b"):
        await use(store, "a")
    assert memory.names == {"a", "b"}
    third = asyncio.create_task(put(store, "c"))
    await settle()
    done.set()
    await asyncio.gather(user, third)
    assert memory.names == {"b", "c"}


async def test_a_name_can_be_used_anew_while_the_old_one_still_runs(store, memory):
    done = asyncio.Event()
    await put(store, "a")
    user = asyncio.create_task(use(store, "a", done))
    await settle()
    await store.remove("a")
    await store.register("a", Path("/adapters/other"), preload=True, pin=False)
    assert sorted(memory.held.values()) == ["a", "a"]
    done.set()
    await user
    await put(store, "b")
    assert sorted(memory.held) == [2, 3]


async def test_one_load_serves_all_who_wait_for_it(store, memory):
    await put(store, "a", preload=False)
    memory.gate.clear()
    users = [asyncio.create_task(use(store, "a")) for _ in range(5)]
    await settle()
    memory.gate.set()
    await asyncio.gather(*users)
    assert memory.num_loads == 1


async def test_a_load_outlives_the_client_that_asked_for_it_and_a_retry_finds_it(store, memory):
    memory.gate.clear()
    asking = asyncio.create_task(put(store, "a"))
    await settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    memory.gate.set()
    await settle()
    assert store.names == []
    await put(store, "a")
    assert (store.names, memory.num_loads) == (["a"], 1)


async def test_what_cannot_be_loaded_is_not_registered_and_takes_no_place(store, memory):
    memory.refused.add("bad")
    with pytest.raises(InvalidRequest):
        await put(store, "bad")
    assert store.names == []
    await put(store, "a", "b")
    assert memory.names == {"a", "b"}
    with pytest.raises(InvalidRequest):
        await store.register("bad", Path("/adapters/elsewhere"), preload=True, pin=False)


async def test_what_can_no_longer_be_loaded_is_not_the_requests_fault(store, memory):
    await put(store, "a", preload=False)
    memory.refused.add("a")
    with pytest.raises(NotReady, match="cannot be loaded: src: bad"):
        await use(store, "a")
    memory.refused.clear()
    await use(store, "a")


async def test_another_folder_under_the_same_name_is_a_conflict(store):
    await put(store, "a")
    with pytest.raises(Conflict, match="/adapters/a"):
        await store.register("a", Path("/adapters/b"), preload=True, pin=False)


async def test_adapters_that_the_engine_started_with_are_taken_over(store, memory):
    memory.held[7] = "static"
    store.adopt("static", Path("/static"), 7)
    async with store.lease("static") as engine_id:
        assert engine_id == 7
    await put(store, "a", "b")
    assert memory.names == {"a", "b"}


async def test_many_requests_over_few_places_never_exceed_them(store, memory):
    names = [f"a{index}" for index in range(6)]
    await put(store, *names, preload=False)

    async def request(index: int) -> str:
        async with store.lease(names[index % 6]) as engine_id:
            await asyncio.sleep(0.001 * (index % 3))
            return memory.held[engine_id]

    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(request(index) for index in range(120)))
    assert answers == [names[index % 6] for index in range(120)]
    assert memory.most == 2
