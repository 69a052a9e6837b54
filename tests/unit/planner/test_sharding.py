"""The arithmetic of sharding, held over many shapes to what vLLM does with the sizes it is told."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.planner.model_shape import ModelShape, read_shape
from serving.planner.sharding import EMPTY, MLP_MULTIPLE, Precision, Sharding, are_valid_slots, divides, plan, unsplit
from tests.unit.planner.known_models import CONFIGS

SMOLLM2 = ModelShape("llama", 30, 576, 9, 3, 64, 1536, 49152, 0, 8192, True)
TOKENS = 8192


def shape_of(kv_heads: int, group: int, head_dim: int = 64, mlp: int = 1024) -> ModelShape:
    return replace(SMOLLM2, num_heads=kv_heads * group, num_kv_heads=kv_heads, head_dim=head_dim, intermediate_size=mlp)


SHAPES = st.builds(
    shape_of,
    kv_heads=st.integers(1, 12),
    group=st.integers(1, 9),
    head_dim=st.sampled_from([32, 64, 80, 128]),
    mlp=st.integers(1, 400).map(lambda size: 8 * size),
)


def place_of_kv_head(sharding: Sharding, rank: int, place: int) -> int:
    """As vLLM's `QKVParallelLinear` and attention do: the slot whose keys the `place`th query head of `rank` is matched with."""
    ranks = sharding.num_ranks
    slots_here = max(1, sharding.num_kv_slots // ranks)
    first = rank * slots_here if sharding.num_kv_slots >= ranks else rank // (ranks // sharding.num_kv_slots)
    heads_here = sharding.num_heads // ranks
    assert heads_here % slots_here == 0
    return first + place // (heads_here // slots_here)


@settings(max_examples=400, deadline=None)
@given(shape=SHAPES, ranks=st.integers(1, 16))
def test_every_query_head_is_placed_once_and_meets_its_own_kv_head_on_its_rank(shape, ranks):
    sharding = plan(shape, ranks, num_tokens=TOKENS)
    queries, kv = sharding.query_sources(), sharding.kv_sources()
    assert sorted(head for head in queries if head != EMPTY) == list(range(shape.num_heads))
    assert set(kv) - {EMPTY} == set(range(shape.num_kv_heads))
    assert (len(queries), len(kv)) == (sharding.num_heads, sharding.num_kv_slots)
    assert sharding.num_heads % ranks == 0
    assert are_valid_slots(sharding.num_kv_slots, ranks)
    heads_here = sharding.num_heads // ranks
    for rank, place in itertools.product(range(ranks), range(heads_here)):
        head = queries[rank * heads_here + place]
        if head != EMPTY:
            assert kv[place_of_kv_head(sharding, rank, place)] == head // shape.heads_per_kv


@settings(max_examples=400, deadline=None)
@given(shape=SHAPES, ranks=st.integers(1, 16))
def test_the_mlp_is_divided_in_parts_that_the_kernels_take(shape, ranks):
    size = plan(shape, ranks, num_tokens=TOKENS).intermediate_size
    if shape.intermediate_size % ranks == 0:
        assert size == shape.intermediate_size
    else:
        assert size % (ranks * MLP_MULTIPLE) == 0
        assert 0 < size - shape.intermediate_size < ranks * MLP_MULTIPLE


def cheapest_by_force(shape: ModelShape, ranks: int, tokens: int) -> float:
    """Every number of slots and of query places in a slot, however many; the bytes are counted here anew."""
    costs = []
    for slots in range(shape.num_kv_heads, 2 * (shape.num_heads + ranks) + 1):
        for places in range(1, 2 * (shape.heads_per_kv + ranks) + 1):
            slots_needed = shape.num_kv_heads * -(-shape.heads_per_kv // places)
            if slots_needed <= slots and slots * places % ranks == 0 and are_valid_slots(slots, ranks):
                held = max(slots, ranks)
                weights = 2 * (slots * places + held) * shape.head_dim * shape.hidden_size * 2 * shape.num_layers
                costs.append(weights + tokens * 2 * held * shape.head_dim * 2 * shape.num_layers)
    return min(costs)


@settings(max_examples=150, deadline=None)
@given(shape=SHAPES, ranks=st.integers(1, 12), tokens=st.sampled_from([0, 100, 10_000, 1_000_000]))
def test_no_other_split_takes_fewer_bytes(shape, ranks, tokens):
    sharding = plan(shape, ranks, num_tokens=tokens)
    mlp = 3 * sharding.intermediate_size * shape.hidden_size * shape.num_layers * 2
    cost = sharding.weight_bytes(Precision()) - mlp + tokens * sharding.kv_bytes_per_token(Precision())
    assert cost == cheapest_by_force(shape, ranks, tokens)


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, ranks=st.integers(1, 16))
def test_what_divides_is_left_as_it_is(shape, ranks):
    sharding = plan(shape, ranks, num_tokens=TOKENS)
    assert sharding.is_padded != divides(shape, ranks)
    if divides(shape, ranks):
        assert sharding.query_sources() == list(range(shape.num_heads))
        assert sharding.kv_sources() == list(range(shape.num_kv_heads))


@pytest.mark.parametrize(
    ("kv_heads", "group", "ranks", "slots", "places"),
    [
        (3, 3, 2, 4, 3),  # SmolLM2-135M: a whole group
        (4, 7, 8, 4, 8),  # Qwen2.5-7B: a query head in each group, each KV head on two ranks
        (2, 7, 4, 2, 8),  # Qwen2.5-0.5B
        (2, 7, 2, 2, 7),
        (8, 5, 16, 8, 6),  # Qwen2.5-14B
        (3, 3, 4, 4, 3),
        (8, 4, 3, 9, 4),  # Llama 3 8B on three GPUs
        (5, 5, 8, 8, 5),
        (5, 2, 16, 8, 2),  # three empty KV heads, each KV head on two ranks
    ],
)
def test_known_models_get_the_plan_one_would_make_by_hand(kv_heads, group, ranks, slots, places):
    sharding = plan(shape_of(kv_heads, group, 128), ranks, num_tokens=TOKENS)
    assert (sharding.num_kv_slots, sharding.heads_per_slot) == (slots, places)


def test_a_kv_head_is_copied_where_that_is_cheaper_than_empty_query_places():
    # Five groups of 16 over two ranks: a sixth, empty group has 16 heads of weights; ten groups of 8 have none, but twice the KV cache.
    sharding = plan(shape_of(5, 16), 2, num_tokens=0)
    assert (sharding.slots_per_kv, sharding.num_kv_slots, sharding.heads_per_slot) == (2, 10, 8)
    assert sharding.kv_sources() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sharding.query_sources() == list(range(80))
    assert plan(shape_of(5, 16), 2, num_tokens=1_000_000).num_kv_slots == 6


def test_the_cost_of_a_plan_is_what_the_zeros_take():
    weights, kv = plan(SMOLLM2, 2, num_tokens=TOKENS).added_bytes(Precision())
    # 3 query heads and 1 KV head of 64 more: rows in q, k and v, columns in o.
    assert weights == (3 + 1 + 1 + 3) * 64 * 576 * 2 * 30
    assert kv == 2 * 64 * 2 * 30
    assert unsplit(SMOLLM2).added_bytes(Precision()) == (0, 0)
    assert plan(SMOLLM2, 2, num_tokens=TOKENS).added_bytes(Precision(1, 1)) == (weights / 2, kv / 2)


CONFIG = CONFIGS["SmolLM2-135M"]


def test_a_shape_is_read_from_a_config():
    assert read_shape(CONFIG) == SMOLLM2


def test_an_explicit_head_size_and_the_text_part_of_a_config_count():
    assert read_shape({"text_config": CONFIG | {"head_dim": 128}}) == replace(SMOLLM2, head_dim=128, has_tied_embeddings=True)


def test_without_kv_heads_every_query_head_has_its_own():
    assert read_shape({key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}).num_kv_heads == 9


@pytest.mark.parametrize("change", [{"hidden_size": None}, {"vocab_size": 0}, {"num_attention_heads": "9"}, {"num_key_value_heads": 2}])
def test_a_config_without_sensible_sizes_has_no_shape(change):
    assert read_shape(CONFIG | change) is None


def test_experts_are_counted_by_any_of_their_names():
    assert read_shape(CONFIG | {"num_local_experts": 8}).num_experts == 8
    assert read_shape(CONFIG).num_experts == 0
