"""Of what kind each field of a config.json is that a plan reads. A field of another kind stops with its name: arithmetic with it would go
wrong without a word, or somewhere deep inside.

A field that is null or not there is none of this file's business: what is needed is asked for where it is needed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from serving.errors import PlanError

_Kind = tuple[Callable[[Any], bool], str]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


_WHOLE: _Kind = (_is_whole, "is no whole number of 0 or more")
_FACTOR: _Kind = (_is_factor, "is no number above 0")
_WHOLES: _Kind = (lambda value: isinstance(value, list) and all(map(_is_whole, value)), "is no list of whole numbers")
_NAMES: _Kind = (lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value), "is no list of names")
_MAPPING: _Kind = (lambda value: isinstance(value, Mapping), "is no mapping")
_NAME: _Kind = (lambda value: isinstance(value, str), "is no name")

_HEADS = ("num_key_value_heads", "num_kv_heads", "head_dim", "num_ln_in_parallel_attn", "word_embed_proj_dim")
_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok", "moe_intermediate_size")
_CHOSEN = ("experts_per_token", "moe_topk", "moe_k")
_MORE_EXPERTS = ("n_shared_experts", "shared_expert_intermediate_size", "first_k_dense_replace", "decoder_sparse_step")
_WINDOWS = ("sliding_window", "max_window_layers", "attention_chunk_size", "no_rope_layer_interval")
_CONTEXT = ("original_max_position_embeddings", "model_max_length", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
_DECODER: Mapping[str, _Kind] = {
    "model_type": _NAME,
    **dict.fromkeys(_HEADS + _LATENT + _EXPERTS + _CHOSEN + _MORE_EXPERTS + _WINDOWS + _CONTEXT, _WHOLE),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), _FACTOR),
    **dict.fromkeys(("mlp_only_layers", "attn_type_list", "no_rope_layers"), _WHOLES),
    **dict.fromkeys(("layer_types", "layers_block_type"), _NAMES),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), _MAPPING),
}
_ROTARY: Mapping[str, _Kind] = {
    **dict.fromkeys(("factor", "partial_rotary_factor"), _FACTOR),
    "original_max_position_embeddings": _WHOLE,
}


def check_fields(decoder: Mapping[str, Any]) -> None:
    """Raise PlanError for the first field of a decoder's config that is of another kind than it must be."""
    _check(decoder, _DECODER, "")
    for name in ("rope_scaling", "rope_parameters"):
        rotary = decoder.get(name) or {}
        _check(rotary, _ROTARY, f"{name}.")
        for kind, of_kind in rotary.items():
            if isinstance(of_kind, Mapping):
                _check(of_kind, _ROTARY, f"{name}.{kind}.")


def _check(fields: Mapping[str, Any], kinds: Mapping[str, _Kind], where: str) -> None:
    for name, (is_right, what) in kinds.items():
        value = fields.get(name)
        if value is not None and not is_right(value):
            raise PlanError(f"config.json: {where}{name}={value!r} {what}")
