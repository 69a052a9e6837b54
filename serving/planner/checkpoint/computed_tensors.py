"""The tensors of a decoder, computed from its config where there are no safetensors headers.

Names are those of Llama's checkpoints, whatever the family calls its own: they say where a rank holds a tensor, and how it is quantised.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from serving.planner.checkpoint.families import FAMILIES, Family, Flag
from serving.planner.checkpoint.tensors import Tensor
from serving.planner.model_shape import num_experts

_Named = tuple[str, tuple[int, ...]]


def computed_tensors(decoder: Mapping[str, Any], dtype: str) -> tuple[Tensor, ...]:
    """Of a `decoder_config` whose family is known; all in `dtype`, a float type of safetensors."""
    family = FAMILIES[decoder["model_type"]]
    named = [*_outside(decoder, family)]
    for number in range(decoder["num_hidden_layers"]):
        parts = [*_attention(decoder, family), *_norms(decoder, family)]
        parts += _experts(decoder, family) if _has_experts(decoder, number) else _mlp(decoder, family, "mlp", decoder["intermediate_size"])
        named += [(f"model.layers.{number}.{name}", shape) for name, shape in parts]
    return tuple(Tensor(name, shape, dtype) for name, shape in named)


def _outside(decoder: Mapping[str, Any], family: Family) -> Iterator[_Named]:
    """The vocabulary, positions and the last norm."""
    hidden, vocabulary = decoder["hidden_size"], decoder["vocab_size"]
    embedding = decoder.get("word_embed_proj_dim") or hidden
    yield "model.embed_tokens.weight", (vocabulary, embedding)
    if embedding != hidden:
        yield "model.project_in.weight", (hidden, embedding)
        yield "model.project_out.weight", (embedding, hidden)
    if family.position_rows is not None:
        yield "model.embed_positions.weight", (decoder["max_position_embeddings"] + family.position_rows, hidden)
    if decoder["model_type"] == "bloom":
        yield from _norm("model.embed_norm", hidden, family)
    if family.num_final_norms and decoder.get("do_layer_norm_before", True):
        yield from _norm("model.norm", hidden, family)
    if not decoder["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, embedding)
    if family.head_bias:
        yield "lm_head.bias", (vocabulary,)


def _norms(decoder: Mapping[str, Any], family: Family) -> Iterator[_Named]:
    number = family.num_norms
    if decoder["model_type"] == "falcon":  # one norm for both halves of a layer, or one for each
        is_new, told = decoder.get("new_decoder_architecture", False), decoder.get("num_ln_in_parallel_attn")
        number = (told or 2) if is_new else 1 if decoder.get("parallel_attn", True) else 2
    for place in range(number):
        yield from _norm(f"norm_{place}", decoder["hidden_size"], family)


def _norm(name: str, size: int, family: Family) -> Iterator[_Named]:
    yield f"{name}.weight", (size,)
    if family.norm_bias:
        yield f"{name}.bias", (size,)


def _attention(decoder: Mapping[str, Any], family: Family) -> Iterator[_Named]:
    if decoder.get("kv_lora_rank"):
        yield from _latent_attention(decoder)
        return
    hidden, heads = decoder["hidden_size"], decoder["num_attention_heads"]
    kv_heads = decoder.get("num_key_value_heads") or heads
    head = decoder.get("head_dim") or hidden // heads
    has_bias = _is_on(decoder, family.qkv_bias)
    for name, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
        yield from _linear(f"self_attn.{name}_proj", rows, hidden, has_bias=has_bias)
    yield from _linear("self_attn.o_proj", hidden, heads * head, has_bias=_is_on(decoder, family.output_bias))
    if family.qk_norm is not None:
        whole = family.qk_norm == "all"
        yield "self_attn.q_norm.weight", (heads * head if whole else head,)
        yield "self_attn.k_norm.weight", (kv_heads * head if whole else head,)
    if family.has_sinks:
        yield "self_attn.sinks", (heads,)


def _latent_attention(decoder: Mapping[str, Any]) -> Iterator[_Named]:
    hidden, heads, rank = decoder["hidden_size"], decoder["num_attention_heads"], decoder["kv_lora_rank"]
    nope, rope, value = (decoder[name] for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    query_rank, has_bias = decoder.get("q_lora_rank"), _is_on(decoder, "attention_bias")
    if query_rank:
        yield from _linear("self_attn.q_a_proj", query_rank, hidden, has_bias=has_bias)
        yield "self_attn.q_a_layernorm.weight", (query_rank,)
        yield "self_attn.q_b_proj.weight", (heads * (nope + rope), query_rank)
    else:
        yield "self_attn.q_proj.weight", (heads * (nope + rope), hidden)
    yield from _linear("self_attn.kv_a_proj_with_mqa", rank + rope, hidden, has_bias=has_bias)
    yield "self_attn.kv_a_layernorm.weight", (rank,)
    yield "self_attn.kv_b_proj.weight", (heads * (nope + value), rank)
    yield from _linear("self_attn.o_proj", hidden, heads * value, has_bias=has_bias)


def _mlp(decoder: Mapping[str, Any], family: Family, name: str, size: int) -> Iterator[_Named]:
    hidden, has_bias = decoder["hidden_size"], _is_on(decoder, family.mlp_bias)
    if family.has_gate:
        yield from _linear(f"{name}.gate_proj", size, hidden, has_bias=has_bias)
    yield from _linear(f"{name}.up_proj", size, hidden, has_bias=has_bias)
    yield from _linear(f"{name}.down_proj", hidden, size, has_bias=has_bias)


def _experts(decoder: Mapping[str, Any], family: Family) -> Iterator[_Named]:
    """The experts of a layer as one tensor a matrix, [expert, out, in]."""
    hidden, number = decoder["hidden_size"], num_experts(decoder)
    size = decoder.get("moe_intermediate_size") or decoder["intermediate_size"]
    yield from _linear("mlp.router", number, hidden, has_bias=family.expert_bias)
    if family.router_correction:
        yield "mlp.router.e_score_correction_bias", (number,)
    for name, shape in (("gate_up_proj", (number, 2 * size, hidden)), ("down_proj", (number, hidden, size))):
        yield f"mlp.experts.{name}", shape
        if family.expert_bias:
            yield f"mlp.experts.{name}_bias", shape[:2]
    shared = decoder.get("shared_expert_intermediate_size") or (decoder.get("n_shared_experts") or 0) * size
    if shared:
        yield from _mlp(decoder, family, "mlp.shared_experts", shared)
    if family.shared_gate:
        yield "mlp.shared_expert_gate.weight", (1, hidden)


def _has_experts(decoder: Mapping[str, Any], number: int) -> bool:
    if not num_experts(decoder) or number in (decoder.get("mlp_only_layers") or ()):
        return False
    is_late = number >= (decoder.get("first_k_dense_replace") or 0)
    return is_late and (number + 1) % (decoder.get("decoder_sparse_step") or 1) == 0


def _linear(name: str, rows: int, columns: int, *, has_bias: bool) -> Iterator[_Named]:
    yield f"{name}.weight", (rows, columns)
    if has_bias:
        yield f"{name}.bias", (rows,)


def _is_on(decoder: Mapping[str, Any], flag: Flag) -> bool:
    if isinstance(flag, bool):
        return flag
    return bool(decoder.get(flag.removeprefix("!"), flag.startswith("!")))
