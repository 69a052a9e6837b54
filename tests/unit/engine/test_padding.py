"""Zeros in the weights against the layer without them: each rank's part is computed as vLLM splits it, and the parts are summed."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.padding import Padding, overrides, padded, padding_of
from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Sharding, plan

SMALL = ModelShape("llama", 2, 24, 9, 3, 4, 20, 64, 0, 128, False)
LAYER = "model.layers.0."


def shape_of(kv_heads: int, group: int, mlp: int) -> ModelShape:
    return replace(SMALL, num_heads=kv_heads * group, num_kv_heads=kv_heads, intermediate_size=mlp)


SHAPES = st.builds(shape_of, kv_heads=st.integers(1, 6), group=st.integers(1, 5), mlp=st.integers(5, 40))


def layer_weights(shape: ModelShape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    rows = {"q": shape.num_heads * shape.head_dim, "k": shape.num_kv_heads * shape.head_dim, "v": shape.num_kv_heads * shape.head_dim}
    sizes = {f"self_attn.{name}_proj.weight": (size, shape.hidden_size) for name, size in rows.items()}
    sizes |= {f"self_attn.{name}_proj.bias": (size,) for name, size in rows.items()}
    sizes["self_attn.o_proj.weight"] = (shape.hidden_size, rows["q"])
    sizes |= {f"mlp.{name}_proj.weight": (shape.intermediate_size, shape.hidden_size) for name in ("gate", "up")}
    sizes["mlp.down_proj.weight"] = (shape.hidden_size, shape.intermediate_size)
    return {LAYER + name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}


def attention(hidden: torch.Tensor, q_rows, k_rows, v_rows, o_columns, head_dim: int) -> torch.Tensor:
    """Causal attention on one rank; the rows come as (weight, bias)."""
    q, k, v = ((hidden @ weight.T + bias).unflatten(-1, (-1, head_dim)).transpose(0, 1) for weight, bias in (q_rows, k_rows, v_rows))
    k, v = (tensor.repeat_interleave(q.shape[0] // tensor.shape[0], dim=0) for tensor in (k, v))
    answers = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return answers.transpose(0, 1).flatten(1) @ o_columns.T


def over_ranks(hidden: torch.Tensor, weights: dict[str, torch.Tensor], sharding: Sharding) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention's and the MLP's output, summed over the ranks. Where there are fewer KV heads than ranks, several ranks take the same."""
    ranks, head_dim = sharding.num_ranks, sharding.shape.head_dim
    of = lambda name: weights[f"{LAYER}{name}"]  # noqa: E731
    attended, activated = torch.zeros_like(hidden), torch.zeros_like(hidden)
    q_size = sharding.num_heads // ranks * head_dim
    kv_size = max(1, sharding.num_kv_slots // ranks) * head_dim
    mlp_size = sharding.intermediate_size // ranks
    for rank in range(ranks):
        kv_rank = rank if sharding.num_kv_slots >= ranks else rank // (ranks // sharding.num_kv_slots)
        q_here, kv_here = slice(rank * q_size, (rank + 1) * q_size), slice(kv_rank * kv_size, (kv_rank + 1) * kv_size)
        rows = [
            (of(f"self_attn.{name}_proj.weight")[here], of(f"self_attn.{name}_proj.bias")[here])
            for name, here in (("q", q_here), ("k", kv_here), ("v", kv_here))
        ]
        attended += attention(hidden, *rows, of("self_attn.o_proj.weight")[:, q_here], head_dim)
        here = slice(rank * mlp_size, (rank + 1) * mlp_size)
        gate, up = (hidden @ of(f"mlp.{name}_proj.weight")[here].T for name in ("gate", "up"))
        activated += (torch.nn.functional.silu(gate) * up) @ of("mlp.down_proj.weight")[:, here].T
    return attended, activated


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, ranks=st.integers(1, 8), tokens=st.sampled_from([0, 100_000]), seed=st.integers(0, 1000))
def test_a_padded_layer_over_any_number_of_ranks_answers_as_the_layer_itself(shape, ranks, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = layer_weights(shape, generator)
    hidden = torch.randn((5, shape.hidden_size), generator=generator, dtype=torch.float64)
    sharding = plan(shape, ranks, num_tokens=tokens)
    padding = padding_of(sharding)
    split = over_ranks(hidden, {name: padded(name, tensor, padding) for name, tensor in weights.items()}, sharding)
    whole = over_ranks(hidden, weights, plan(shape, 1, num_tokens=tokens))
    for ours, theirs in zip(split, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.fixture
def padding() -> Padding:
    """9 query heads as 12, 3 KV heads as 4, an MLP of 20 as 32; all on two ranks."""
    return padding_of(plan(replace(SMALL, intermediate_size=21), 2, num_tokens=100))


def test_fused_layers_are_padded_part_by_part(padding):
    q, k, v = torch.randn(36, 24), torch.randn(12, 24), torch.randn(12, 24)
    whole = padded(f"{LAYER}self_attn.qkv_proj.weight", torch.cat([q, k, v]), padding)
    parts = [padded(f"{LAYER}self_attn.{name}_proj.weight", tensor, padding) for name, tensor in (("q", q), ("k", k), ("v", v))]
    assert torch.equal(whole, torch.cat(parts))
    gate, up = torch.randn(21, 24), torch.randn(21, 24)
    whole = padded(f"{LAYER}mlp.gate_up_proj.weight", torch.cat([gate, up]), padding)
    assert whole.shape == (64, 24)
    assert torch.equal(whole[:21], gate)
    assert torch.equal(whole[32:53], up)
    assert not whole[21:32].any()
    assert not whole[53:].any()


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "lm_head.weight", f"{LAYER}self_attn.q_norm.weight", f"{LAYER}input_layernorm.weight"]
)
def test_what_is_not_split_by_heads_is_passed_on_as_it_is(name, padding):
    tensor = torch.randn(7)
    assert padded(name, tensor, padding) is tensor


def test_what_does_not_change_is_not_copied(padding):
    only_mlp = replace(padding, num_heads=4, num_kv_heads=2, query_sources=[0, 1, 2, 3], kv_sources=[0, 1])
    tensor = torch.randn(16, 24)
    assert torch.equal(padded(f"{LAYER}self_attn.q_proj.weight", tensor, only_mlp), tensor)
    assert padded(f"{LAYER}self_attn.q_proj.weight", tensor, only_mlp).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bfloat16])
def test_quantized_rows_are_padded_with_their_scales(dtype, padding):
    weight = torch.ones(36, 24).to(dtype)
    rows = padded(f"{LAYER}self_attn.q_proj.weight", weight, padding)
    scales = padded(f"{LAYER}self_attn.q_proj.weight_scale", torch.full((36, 1), 0.5), padding)
    assert rows.shape == (48, 24)
    assert rows.dtype == dtype
    assert (rows[:36].float() == 1).all()
    assert not rows[36:].float().any()
    assert scales.flatten().tolist() == [0.5] * 36 + [1.0] * 12


def test_scales_of_columns_and_of_whole_layers_stay(padding):
    scale = torch.full((24, 1), 0.5)
    assert padded(f"{LAYER}self_attn.o_proj.weight_scale", scale, padding) is scale
    one = torch.ones(1)
    assert padded(f"{LAYER}self_attn.q_proj.weight_scale", one, padding) is one


def test_a_kind_of_tensor_that_is_not_known_is_refused(padding):
    with pytest.raises(ValueError, match=r"q_proj\.qweight: a qweight cannot be padded"):
        padded(f"{LAYER}self_attn.q_proj.qweight", torch.ones(4, 4), padding)


def test_a_tensor_of_another_size_than_the_config_says_is_refused(padding):
    with pytest.raises(ValueError, match=r"\(40, 24\) does not have the heads"):
        padded(f"{LAYER}self_attn.q_proj.weight", torch.ones(40, 24), padding)


def test_the_plan_survives_the_way_through_json(padding):
    assert Padding(**padding.to_json()) == padding


def test_vllm_is_told_the_padded_sizes():
    sharding = plan(SMALL, 2, num_tokens=100)
    told = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 4, "intermediate_size": 20}
    assert overrides(sharding) == told
    qwen2 = overrides(replace(sharding, shape=replace(SMALL, model_type="qwen2")))
    assert qwen2 == told | {"architectures": ["LlamaForCausalLM"], "qkv_bias": True, "attention_bias": False}
