"""A config.json as the planner reads it: the decoder's own part, under the names that most families use, with every size there.

Steps: the text part of a multimodal model, older names to common ones, what a family leaves out because it follows from the rest, and
then the check that each size is a number that can be one.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from serving.errors import PlanError
from serving.planner.checkpoint.config_fields import check_fields
from serving.planner.checkpoint.families import FAMILIES
from serving.planner.checkpoint.nested_defaults import completed
from serving.planner.model_shape import ModelShape, read_shape, text_config

_ALIASES = {
    "num_hidden_layers": ("n_layer", "n_layers"),
    "hidden_size": ("n_embd", "d_model", "n_embed"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "seq_length", "max_seq_len", "max_sequence_length"),
    "vocab_size": (),
}
"""Older names of the same sizes: `attribute_map` in Transformers' configs of GPT-2, OPT, Falcon, BLOOM."""
_FOUR_TIMES = ("gpt2", "gpt_bigcode", "falcon", "bloom")
"""Families whose MLP is four times as wide as the model where the config does not say."""
_NO_LIMIT = 2048
"""vLLM's `max_model_len` where the config has none (`_get_and_verify_max_len` in vllm/config/model.py)."""
_MOST = 10_000
"""Layers, and heads, of any model: to go through as many as a damaged config.json may say would never end."""
_PLANNED_LAYERS = ("full_attention", "sliding_attention", "chunked_attention", "attention")
_STATE, _INDEX, _SHARED = "a recurrent state", "an index of tokens beside its KV cache", "layers that share a KV cache"
_UNLIKE_HEADS = "layers whose heads are unlike those of others"
_UNPLANNED = {
    "ssm_cfg": _STATE,
    "state_size": _STATE,
    "mamba_d_state": _STATE,
    "hybrid_override_pattern": _STATE,
    "linear_attn_config": _STATE,
    "linear_num_value_heads": _STATE,
    "conv_L_cache": _STATE,
    "lru_width": _STATE,
    "index_topk": _INDEX,
    "index_topk_blocks": _INDEX,
    "is_encoder_decoder": "an encoder",
    "kv_shared_layer_index": _SHARED,
    "num_kv_shared_layers": _SHARED,
    "per_layer_config": _UNLIKE_HEADS,
    "global_head_dim": _UNLIKE_HEADS,
    "swa_num_key_value_heads": _UNLIKE_HEADS,
    "attention_other_setting": _UNLIKE_HEADS,
    "block_configs": _UNLIKE_HEADS,
}
"""Fields that tell of what a sequence takes beside a plain KV cache, and what it is."""
LATENT = frozenset(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_k2", "pangu_ultra_moe"))
"""Models whose latent vector is what vLLM keeps (`is_deepseek_mla` in vllm/transformers_utils/model_arch_config_convertor.py)."""


def decoder_config(config: Mapping[str, Any], *, has_tensors: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The decoder's part with common names, and a line for what it leaves out and was assumed. `has_tensors`: the tensors are known from
    safetensors headers, so that the family need not be.

    Raises:
        PlanError: the architecture cannot be planned, or a size is missing or impossible; names it.
    """
    told = text_config(config)
    decoder, assumed = (dict(config), ()) if told is config else completed(told)
    if not decoder.get("model_type"):
        raise PlanError("config.json: model_type is missing; without it the architecture is not known")
    check_fields(decoder)
    _check_architecture(decoder, has_tensors=has_tensors)
    for name, aliases in _ALIASES.items():
        if decoder.get(name) is None:
            decoder[name] = next((decoder[alias] for alias in aliases if decoder.get(alias) is not None), None)
    _complete(decoder, config)
    for name in _ALIASES:
        _check_size(decoder, name)
    _check_heads(decoder)
    _check_layers(decoder)
    return decoder, assumed


def shape_of(decoder: Mapping[str, Any]) -> ModelShape:
    """The sizes in what `decoder_config` returned."""
    shape = read_shape(decoder)
    if shape is None:
        raise PlanError(f"config.json: the sizes of {decoder['model_type']} contradict each other")
    return shape


def _check_architecture(decoder: Mapping[str, Any], *, has_tensors: bool) -> None:
    name, what = decoder["model_type"], _unplanned(decoder)
    if what is not None:
        raise PlanError(f"config.json: model_type={name} has {what}; such models are not planned")
    if name in FAMILIES or has_tensors:
        return
    near = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0)
    raise PlanError(
        f"config.json: model_type={name} is not an architecture that is known here (nearest: {near[0]}); "
        "give a folder or a hub id that has its safetensors files, whose headers tell the sizes"
    )


def _unplanned(decoder: Mapping[str, Any]) -> str | None:
    """What the model has that no plan counts; None for nothing."""
    told = next((what for field, what in _UNPLANNED.items() if decoder.get(field)), None)
    if told is not None:
        return told
    kinds = decoder.get("layer_types") or decoder.get("layers_block_type") or ()
    other = next((kind for kind in kinds if kind not in _PLANNED_LAYERS), None)
    if other is not None:
        return f"layers of the kind {other}"
    if 0 in (decoder.get("attn_type_list") or ()):  # MiniMax's: 1 is attention
        return _STATE
    if decoder.get("kv_lora_rank") and decoder["model_type"] not in LATENT:
        return "latent attention (kv_lora_rank) that is not known here"
    if not decoder.get("kv_lora_rank") and decoder.get("v_head_dim") not in (None, decoder.get("head_dim")):
        return "values of another size than its keys"
    return None


def _complete(decoder: dict[str, Any], config: Mapping[str, Any]) -> None:
    """What the family's own configuration class adds to what the file says."""
    family, name = FAMILIES.get(decoder["model_type"]), decoder["model_type"]
    tied = config.get("tie_word_embeddings", decoder.get("tie_word_embeddings"))
    decoder["tie_word_embeddings"] = bool(tied) if tied is not None else family is not None and family.is_tied
    if decoder["intermediate_size"] is None and name in _FOUR_TIMES and isinstance(decoder["hidden_size"], int):
        decoder["intermediate_size"] = 4 * decoder["hidden_size"]
    if decoder["max_position_embeddings"] is None:
        decoder["max_position_embeddings"] = _NO_LIMIT
    if name == "gpt_bigcode" and decoder.get("multi_query", True):
        decoder["num_key_value_heads"] = 1
    if name == "falcon":
        one = None if decoder.get("new_decoder_architecture") or not decoder.get("multi_query", True) else 1
        decoder["num_key_value_heads"] = one or decoder.get("num_kv_heads")


def _check_size(decoder: Mapping[str, Any], name: str) -> None:
    value = decoder[name]
    if value is None:
        raise PlanError(f"config.json: {name} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PlanError(f"config.json: {name}={value!r} is no positive whole number")


def _check_heads(decoder: Mapping[str, Any]) -> None:
    heads, kv_heads = decoder["num_attention_heads"], decoder.get("num_key_value_heads") or decoder["num_attention_heads"]
    if heads % kv_heads:
        raise PlanError(f"config.json: num_key_value_heads={kv_heads!r} does not divide num_attention_heads={heads}")
    if decoder.get("head_dim") is None and decoder["hidden_size"] % heads and not decoder.get("kv_lora_rank"):
        raise PlanError(
            f"config.json: num_attention_heads={heads} does not divide hidden_size={decoder['hidden_size']}, and head_dim is missing"
        )
    if decoder.get("kv_lora_rank"):
        for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if not decoder.get(name):
                raise PlanError(f"config.json: {name} is missing, which latent attention (kv_lora_rank) needs")


def _check_layers(decoder: Mapping[str, Any]) -> None:
    for name in ("num_hidden_layers", "num_attention_heads"):
        if decoder[name] > _MOST:
            raise PlanError(f"config.json: {name}={decoder[name]} is more than the {_MOST} that are planned")
    for name in ("layer_types", "no_rope_layers"):
        told = decoder.get(name)
        if told and len(told) < decoder["num_hidden_layers"]:
            raise PlanError(f"config.json: {name} has {len(told)} layers, and num_hidden_layers={decoder['num_hidden_layers']}")
