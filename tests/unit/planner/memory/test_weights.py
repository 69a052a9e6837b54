"""Who holds what of the weights: ranks, stages, experts, the vocabulary, and what quantisation changes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import PlanError
from serving.planner.checkpoint.placement import Place, place_of
from serving.planner.checkpoint.tensors import Tensor
from serving.planner.memory.division import sharding_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.weight_format import ONLINE, checkpoint_format, online_format
from serving.planner.memory.weights import weights_bytes
from serving.planner.model import Model, model_of
from tests.unit.planner.known_models import CONFIGS, model

LLAMA = CONFIGS["Llama-3.1-8B"]
HIDDEN, VOCABULARY, LAYERS = 4096, 128256, 32
ROTARY = 131072 * 128 * 2
LAYER = (2 * (32 + 8) * 128 + 3 * 14336) * HIDDEN
SMALL = 2 * HIDDEN


def size(planned: Model, num_ranks: int = 1, quantization: str | None = None, *, num_stages: int = 1, **layout: object) -> float:
    sharding = sharding_of(planned, num_ranks, quantization=quantization, **layout)
    weight_format = None if quantization is None else online_format(quantization)
    return weights_bytes(planned, Layout(sharding, num_stages, **layout), weight_format, 2).estimate


def test_one_gpu_holds_everything_and_the_table_of_positions():
    assert size(model("Llama-3.1-8B")) == 8_030_261_248 * 2 + ROTARY


def test_matrices_are_divided_and_norms_are_on_every_rank():
    divided = LAYERS * LAYER + 2 * VOCABULARY * HIDDEN
    whole = LAYERS * SMALL + HIDDEN
    assert size(model("Llama-3.1-8B"), 4) == (divided / 4 + whole) * 2 + ROTARY


def test_kv_heads_are_copied_where_there_are_more_ranks():
    kv = 2 * 8 * 128 * HIDDEN * LAYERS
    divided = LAYERS * LAYER + 2 * VOCABULARY * HIDDEN - kv
    assert size(model("Llama-3.1-8B"), 16) == (divided / 16 + kv / 8 + LAYERS * SMALL + HIDDEN) * 2 + ROTARY


def test_the_vocabulary_is_filled_up_to_a_multiple_of_64_that_the_ranks_divide():
    filled = size(model("Llama-3.1-8B", vocab_size=128001)) - size(model("Llama-3.1-8B"))
    assert filled == 2 * (128064 - VOCABULARY) * HIDDEN * 2
    for num_ranks in (1, 2, 3, 5):
        rows = Layout(sharding_of(model("Llama-3.1-8B"), num_ranks, quantization=None)).share(Place.VOCABULARY) * VOCABULARY
        assert rows.denominator == 1
        assert rows * num_ranks >= VOCABULARY
        assert rows * num_ranks % 64 == 0


def test_tied_embeddings_are_held_once_and_by_both_ends_of_a_pipeline():
    tied = model("Llama-3.1-8B", tie_word_embeddings=True)
    vocabulary = VOCABULARY * HIDDEN * 2
    assert size(model("Llama-3.1-8B")) - size(tied) == vocabulary
    assert size(tied, num_stages=2) == (16 * (LAYER + SMALL) + HIDDEN) * 2 + vocabulary + ROTARY


@pytest.mark.parametrize(("num_layers", "num_stages"), [(32, 4), (27, 2), (30, 4), (61, 8), (5, 5)])
def test_stages_are_uneven_as_vllm_makes_them(num_layers, num_stages):
    from vllm.distributed.utils import get_pp_indices

    planned = model("Llama-3.1-8B", num_hidden_layers=num_layers)
    stages = Layout(sharding_of(planned, 1, quantization=None), num_stages).stage_layers
    assert [(stage.start, stage.stop) for stage in stages] == [get_pp_indices(num_layers, rank, num_stages) for rank in range(num_stages)]


def test_our_padding_is_paid_for():
    planned = model("Qwen2.5-7B")  # 28 heads, 4 KV heads
    sharding = sharding_of(planned, 3, quantization=None)
    assert sharding.is_padded
    heads = sharding.num_heads / 28
    assert Layout(sharding).share(Place.COLUMNS_QUERY) * 3 == pytest.approx(heads)
    assert size(planned, 3) > size(planned) / 3


def test_experts_are_cut_in_slices_over_all_replicas_or_held_whole():
    planned = model("Mixtral-8x7B")
    experts = 32 * 8 * 3 * 4096 * 14336 * 2
    others = size(planned) - experts
    assert size(planned, num_replicas=4) == others + experts / 4
    assert size(planned, num_replicas=4, has_expert_parallel=True) == others + experts / 4
    assert size(planned, num_replicas=3, has_expert_parallel=True) == others + experts * 3 / 8


def test_routers_and_the_first_halves_of_latent_attention_are_on_every_rank():
    assert place_of("model.layers.1.mlp.gate.weight", 2) is Place.WHOLE
    assert place_of("model.layers.1.block_sparse_moe.gate.weight", 2) is Place.WHOLE
    assert place_of("model.layers.1.self_attn.kv_a_proj_with_mqa.weight", 2) is Place.WHOLE
    assert place_of("model.layers.1.self_attn.kv_b_proj.weight", 2) is Place.ROWS_QUERY
    assert place_of("model.layers.1.mlp.shared_experts.gate_proj.weight", 2) is Place.ROWS_MLP
    assert place_of("model.layers.1.mlp.experts.7.gate_proj.weight", 2) is Place.EXPERTS


def test_a_bias_after_a_layer_that_is_divided_by_input_is_on_every_rank():
    assert place_of("model.layers.1.self_attn.o_proj.bias", 1) is Place.WHOLE
    assert place_of("model.layers.1.self_attn.q_proj.bias", 1) is Place.ROWS_QUERY


def test_int8_is_a_byte_a_weight_and_a_scale_a_row_and_spares_the_vocabulary():
    rows = LAYERS * ((32 + 2 * 8) * 128 + HIDDEN + 2 * 14336 + HIDDEN)
    floats = (2 * VOCABULARY * HIDDEN + LAYERS * SMALL + HIDDEN) * 2
    assert size(model("Llama-3.1-8B"), quantization="int8") == LAYERS * LAYER + 4 * rows + floats + ROTARY


def test_scales_of_rows_that_are_cut_are_on_every_rank():
    by_input = LAYERS * 2 * HIDDEN
    by_output = LAYERS * ((32 + 2 * 8) * 128 + 2 * 14336)
    floats = (2 * VOCABULARY * HIDDEN / 2 + LAYERS * SMALL + HIDDEN) * 2
    assert size(model("Llama-3.1-8B"), 2, "int8") == LAYERS * LAYER / 2 + 4 * (by_output / 2 + by_input) + floats + ROTARY


def test_routers_stay_floats_and_experts_do_not():
    planned = model("Mixtral-8x7B")
    experts_only = size(planned, quantization="int8_per_channel_weight_only")
    assert size(planned) - experts_only == 32 * 8 * (3 * 4096 * 14336 - 4 * (2 * 14336 + 4096))
    attention = 32 * 2 * (32 + 8) * 128 * 4096
    assert experts_only - size(planned, quantization="int8") == attention - 32 * 4 * ((32 + 16) * 128 + 4096)


@pytest.mark.parametrize(
    ("told", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4 + 8.125 / 64),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "group", "group_size": 128}}},
            },
            4.125,
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}}}}, 8),
    ],
)
def test_a_quantised_checkpoint_without_files_is_counted_by_what_its_config_says(told, bits):
    floats = (2 * VOCABULARY * HIDDEN + LAYERS * SMALL + HIDDEN) * 2 + ROTARY
    quantised = size(model("Llama-3.1-8B", quantization_config=told)) - floats
    assert quantised == pytest.approx(LAYERS * LAYER * bits / 8, rel=1e-2 if bits == 8 else 1e-12)


def test_layers_that_a_checkpoint_leaves_alone_stay_floats():
    told = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0"]}
    some, all_layers = (model("Llama-3.1-8B", quantization_config=one) for one in (told, {"quant_method": "fp8"}))
    assert size(some) - size(all_layers) == LAYER
    by_pattern = checkpoint_format({"quant_method": "fp8", "ignore": ["re:.*self_attn.*"]})
    assert not by_pattern.quantizes("model.layers.3.self_attn.q_proj", is_expert=False)
    assert by_pattern.quantizes("model.layers.3.mlp.up_proj", is_expert=False)


def test_packed_weights_and_their_scales_are_counted_as_they_are_in_the_files():
    layer = "model.layers.0.mlp.down_proj"
    tensors = (
        Tensor(f"{layer}.qweight", (14336 // 8, 4096), "I32"),
        Tensor(f"{layer}.scales", (112, 4096), "F16"),
        Tensor(f"{layer}.qzeros", (112, 512), "I32"),
        Tensor("model.layers.0.mlp.up_proj.weight", (14336, 4096), "F8_E4M3"),
        Tensor("model.layers.0.mlp.up_proj.weight_scale", (14336, 1), "F32"),
        Tensor("model.layers.1.mlp.down_proj.weight_scale", (4096, 1), "F32"),
    )
    told = {"quant_method": "awq", "bits": 4, "group_size": 128}
    planned = model_of("m", LLAMA | {"quantization_config": told}, tensors)
    packed = sum(tensor.num_bytes for tensor in tensors)
    assert size(planned) == packed + ROTARY
    per_channel = 4096 * 4
    assert size(planned, 2) == (packed - per_channel) / 2 + per_channel + ROTARY


def test_towers_of_other_inputs_are_whole_on_each_rank_or_divided():
    tensors = (Tensor("vision_tower.layers.0.self_attn.q_proj.weight", (1024, 1024), "BF16"),)
    planned = model_of("m", LLAMA, tensors)
    interval = weights_bytes(planned, Layout(sharding_of(planned, 2, quantization=None)), None, 2)
    assert (interval.low, interval.estimate, interval.high) == (2**20 + ROTARY, 2**21 + ROTARY, 2**21 + ROTARY)


def test_a_format_that_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(PlanError, match=r"quantization='int88' is not known \(nearest: int8\)"):
        online_format("int88")
    with pytest.raises(PlanError, match="quantization=awq: the checkpoint is in floats"):
        online_format("awq")


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["Llama-3.1-8B", "Qwen2.5-7B", "phi-4", "gemma-2-9b", "Mixtral-8x7B", "DeepSeek-V2-Lite"]),
    sizes=st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])).map(sorted),
    quantization=st.sampled_from([None, *ONLINE]),
)
def test_more_ranks_never_hold_more_each(name, sizes, quantization):
    planned = model(name)
    try:
        fewer, more = (size(planned, num_ranks, quantization) for num_ranks in sizes)
    except PlanError:
        return
    assert more <= fewer
    assert more * sizes[1] >= fewer * sizes[0] * (1 - 1e-9)
    assert math.isfinite(more)
