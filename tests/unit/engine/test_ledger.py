import asyncio
import itertools
import random
from dataclasses import asdict

import pytest

from serving.engine.kv_cache_size import Wish, check_fit, num_blocks, wish_config, wish_of
from serving.engine.ledger import Ledger, Measured, account, own_bytes
from serving.engine.ledger_system import machine_memory, proc_fields
from serving.errors import NotReady, StartError

GIB = 2**30


def measured(**changes) -> Measured:
    usual = Measured(
        rank=0,
        device="cuda:0",
        total_bytes=24 * GIB,
        free_bytes=4 * GIB,
        process_bytes=19 * GIB,
        weights_by_dtype={"int8": 6 * GIB, "bfloat16": 2 * GIB},
        kv_cache_bytes=8 * GIB,
        kv_cache_blocks=4096,
        kv_cache_tokens=65536,
        kv_cache_sequences=8.0,
        cuda_graph_bytes=1 * GIB,
        activation_held_bytes=1 * GIB,
        activation_peak_bytes=2 * GIB,
    )
    return Measured(**{**asdict(usual), **changes})


def parts(device) -> int:
    names = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free")
    return sum(getattr(device, f"{name}_bytes") for name in names)


def test_each_byte_is_in_one_part():
    device = account(measured())
    assert (device.weights_bytes, device.non_torch_bytes, device.other_bytes) == (8 * GIB, 1 * GIB, 1 * GIB)
    # Of the peak of 2 GiB 1 is allocated, so 1 of the 4 that are free is spoken for.
    assert (device.activation_peak_bytes, device.free_bytes) == (2 * GIB, 3 * GIB)
    assert parts(device) == device.total_bytes


def test_what_steps_hold_is_never_more_than_the_peak():
    device = account(measured(activation_held_bytes=2 * GIB, activation_peak_bytes=GIB))
    assert device.activation_peak_bytes == 2 * GIB
    assert parts(device) == device.total_bytes


def test_the_parts_add_up_whatever_the_figures_as_long_as_they_can_be_true():
    dice = random.Random(1)
    for _ in range(1000):
        weights, kv, graphs, held, rest, other, free = (dice.randrange(10 * GIB) for _ in range(7))
        process = weights + kv + graphs + held + rest
        device = account(
            measured(
                total_bytes=process + other + free,
                free_bytes=free,
                process_bytes=process,
                weights_by_dtype={"float16": weights},
                kv_cache_bytes=kv,
                cuda_graph_bytes=graphs,
                activation_held_bytes=held,
                activation_peak_bytes=held + dice.randrange(free + 1),
            )
        )
        assert parts(device) == device.total_bytes
        assert (device.non_torch_bytes, device.other_bytes) == (rest, other)


@pytest.mark.parametrize(
    ("processes", "own"),
    [
        ([(7, 10 * GIB), (8, 3 * GIB)], 10 * GIB),
        ([(7, 3 * GIB), (8, 10 * GIB)], 10 * GIB),  # another namespace's 7: it has less than torch here; 8 is the only one that can be us
        ([(4000, 10 * GIB)], 10 * GIB),
        ([(4000, 10 * GIB), (4001, 9 * GIB)], 16 * GIB),  # either could be: all counts as ours
        ([(7, None)], 16 * GIB),
        ([], 16 * GIB),
    ],
)
def test_this_process_is_found_in_the_drivers_list_by_id_or_by_size(processes, own):
    assert own_bytes(processes, pid=7, least_bytes=8 * GIB, used_bytes=16 * GIB) == own


class Ranks:
    """Answers when `gate` is open."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def __call__(self):
        self.num_asked += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return [asdict(measured(rank=1)), asdict(measured(rank=0))]


@pytest.fixture
def ranks() -> Ranks:
    return Ranks()


async def test_ranks_come_in_order_and_with_the_age_of_the_measurement(ranks):
    ledger = Ledger(ranks, clock=itertools.count(step=0.25).__next__)
    memory = await ledger.read(1)
    assert [device.rank for device in memory.devices] == [0, 1]
    assert memory.as_of_s == 0.25


async def test_within_a_second_the_engine_is_asked_once_and_later_again(ranks):
    now = 0.0
    ledger = Ledger(ranks, clock=lambda: now)
    for _ in range(3):
        await ledger.read(1)
    assert ranks.num_asked == 1
    now = 1.5
    await ledger.read(1)
    assert ranks.num_asked == 2


async def test_an_engine_that_does_not_answer_costs_the_deadline_and_is_not_asked_again_meanwhile(ranks):
    now = 0.0
    ledger = Ledger(ranks, clock=lambda: now)
    await ledger.read(1)
    ranks.gate.clear()
    now = 40.0
    before = asyncio.get_running_loop().time()
    told = await asyncio.gather(*(ledger.read(0.05) for _ in range(5)))
    assert asyncio.get_running_loop().time() - before < 1
    assert {memory.as_of_s for memory in told} == {40.0}
    assert ranks.num_asked == 2
    ranks.gate.set()
    assert (await ledger.read(1)).as_of_s == 0.0
    assert ranks.num_asked == 2


async def test_before_the_first_measurement_there_is_nothing_to_give(ranks):
    ranks.gate.clear()
    with pytest.raises(NotReady, match=r"within 0\.05 s"):
        await Ledger(ranks).read(0.05)


async def test_a_failure_is_told_only_while_there_is_nothing_else_to_tell(ranks):
    now = 0.0
    ledger = Ledger(ranks, clock=lambda: now)
    ranks.failure = NotReady("the engine cannot measure its memory: why")
    with pytest.raises(NotReady, match="why"):
        await ledger.read(1)
    ranks.failure = None
    await ledger.read(1)
    ranks.failure = NotReady("why")
    now = 9.0
    assert (await ledger.read(1)).as_of_s == 9.0


def test_a_wish_travels_in_vllms_configuration():
    assert wish_of(wish_config(1000, None)) == Wish(tokens=1000)
    assert wish_of(wish_config(None, 3)) == Wish(sequences=3)
    assert wish_of({**wish_config(None, None), "other": 1}) is None


@pytest.mark.parametrize(
    ("wish", "max_model_len", "blocks_per_sequence", "expected"),
    [
        (Wish(tokens=2048), 2048, 16, 17),
        (Wish(tokens=2049), 2048, 16, 18),
        (Wish(tokens=4096), 2000, 16, 34),  # a sequence of 2000 takes 16 blocks of 128, the last of them not full
        (Wish(sequences=3), 2000, 16, 49),
        (Wish(sequences=3), 2000, 40, 121),  # several groups of layers, each with blocks of its own
    ],
)
def test_the_blocks_hold_what_was_asked_for_and_the_one_kept_back(wish, max_model_len, blocks_per_sequence, expected):
    assert num_blocks(wish, max_model_len, blocks_per_sequence) == expected


def test_tokens_for_less_than_one_sequence_are_refused_with_what_would_do():
    with pytest.raises(StartError, match=r"kv_cache_tokens=1000 .* max_model_len=2048; set kv_cache_tokens to 2048 or more"):
        num_blocks(Wish(tokens=1000), 2048, 16)


def test_what_does_not_fit_is_refused_with_both_figures_and_what_would_fit():
    check_fit(Wish(sequences=4), [2 * GIB, GIB], [2 * GIB, GIB])
    with pytest.raises(StartError) as refusal:
        check_fit(Wish(sequences=100), [GIB, 4 * GIB], [2 * GIB, 3 * GIB])
    assert str(refusal.value) == (
        "not enough memory for the KV cache on rank 1: max_concurrency=100 needs 4.00 GiB, 3.00 GiB are free; "
        "set max_concurrency to 74 or less"
    )
    with pytest.raises(StartError, match=r"0\.00 GiB are free; give it more memory"):
        check_fit(Wish(tokens=100), [GIB], [-GIB])


def test_the_kernels_figures_are_read_in_bytes():
    status = proc_fields("status")
    assert status["VmHWM"] >= status["VmRSS"] > 2**20
    assert proc_fields("smaps_rollup")["Pss"] <= status["VmHWM"] * 1.1


@pytest.mark.parametrize(
    ("folder", "limit", "usage", "inactive"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_of_a_containers_memory_the_files_that_it_has_read_are_free(tmp_path, folder, limit, usage, inactive):
    total, free = machine_memory(tmp_path)
    assert total > free > GIB // 4
    files = tmp_path / folder
    files.mkdir(exist_ok=True)
    (files / limit).write_text(f"{GIB // 4}\n")
    (files / usage).write_text(f"{GIB // 8}\n")
    (files / "memory.stat").write_text(f"anon 1\n{inactive} {GIB // 16}\n")
    assert machine_memory(tmp_path) == (GIB // 4, 3 * GIB // 16)
    (files / limit).write_text("max\n" if folder == "." else "9223372036854771712\n")
    assert machine_memory(tmp_path)[0] == total
