"""A config.json as the planner reads it: the decoder's own part, under the names that most families use, with every size there.

Steps: the text part of a multimodal model, older names to common ones, what a family leaves out because it follows from the rest, and
then the check that each size is a number that can be one.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from serving.errors import PlanError
from serving.planner.checkpoint.families import FAMILIES
from serving.planner.model_shape import ModelShape, read_shape, text_config

_ALIASES = {
    "num_hidden_layers": ("n_layer", "n_layers"),
    "hidden_size": ("n_embd", "d_model", "n_embed"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "seq_length", "max_seq_len"),
    "vocab_size": (),
}
"""Older names of the same sizes: `attribute_map` in Transformers' configs of GPT-2, OPT, Falcon, BLOOM."""
_FOUR_TIMES = ("gpt2", "gpt_bigcode", "falcon", "bloom")
"""Families whose MLP is four times as wide as the model where the config does not say."""
_NO_LIMIT = 2048
"""vLLM's `max_model_len` where the config has none (`_get_and_verify_max_len` in vllm/config/model.py)."""
_RECURRENT_LAYERS = ("linear_attention", "mamba", "mamba2", "recurrent", "conv", "short_conv", "hybrid")
_UNPLANNED = {
    "ssm_cfg": "a recurrent state",
    "state_size": "a recurrent state",
    "mamba_d_state": "a recurrent state",
    "hybrid_override_pattern": "a recurrent state",
    "linear_attn_config": "a recurrent state",
    "index_topk": "an index of tokens beside its KV cache",
    "is_encoder_decoder": "an encoder",
    "kv_shared_layer_index": "layers that share a KV cache",
    "num_kv_shared_layers": "layers that share a KV cache",
}
"""Fields that tell of what a sequence takes beside a plain KV cache, and what it is."""


def decoder_config(config: Mapping[str, Any], *, has_tensors: bool) -> dict[str, Any]:
    """The decoder's part with common names. `has_tensors`: the tensors are known from safetensors headers, so that the family need not be.

    Raises:
        PlanError: the architecture cannot be planned, or a size is missing or impossible; names it.
    """
    decoder = dict(text_config(config))
    if not decoder.get("model_type"):
        raise PlanError("config.json: model_type is missing; without it the architecture is not known")
    _check_architecture(decoder, has_tensors=has_tensors)
    for name, aliases in _ALIASES.items():
        if decoder.get(name) is None:
            decoder[name] = next((decoder[alias] for alias in aliases if decoder.get(alias) is not None), None)
    _complete(decoder, config)
    for name in _ALIASES:
        _check_size(decoder, name)
    _check_heads(decoder)
    return decoder


def shape_of(decoder: Mapping[str, Any]) -> ModelShape:
    """The sizes in what `decoder_config` returned."""
    shape = read_shape(decoder)
    if shape is None:
        raise PlanError(f"config.json: the sizes of {decoder['model_type']} contradict each other")
    return shape


def _check_architecture(decoder: Mapping[str, Any], *, has_tensors: bool) -> None:
    name = decoder["model_type"]
    kinds = set(decoder.get("layer_types") or decoder.get("layers_block_type") or ())
    has = next((told for field, told in _UNPLANNED.items() if decoder.get(field)), None)
    if has is not None or kinds.intersection(_RECURRENT_LAYERS):
        raise PlanError(f"config.json: model_type={name} has {has or 'a recurrent state'}; such models are not planned")
    if name in FAMILIES or has_tensors:
        return
    near = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0)
    raise PlanError(
        f"config.json: model_type={name} is not an architecture that is known here (nearest: {near[0]}); "
        "give a folder or a hub id that has its safetensors files, whose headers tell the sizes"
    )


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
    if not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads:
        raise PlanError(f"config.json: num_key_value_heads={kv_heads!r} does not divide num_attention_heads={heads}")
    if decoder.get("head_dim") is None and decoder["hidden_size"] % heads and not decoder.get("kv_lora_rank"):
        raise PlanError(
            f"config.json: num_attention_heads={heads} does not divide hidden_size={decoder['hidden_size']}, and head_dim is missing"
        )
    if decoder.get("kv_lora_rank"):
        for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if decoder.get(name) is None:
                raise PlanError(f"config.json: {name} is missing, which latent attention (kv_lora_rank) needs")
