"""How long a context a model may have, as vLLM reads it from the config (`_get_and_verify_max_len` in vllm/config/model.py)."""

from collections.abc import Mapping
from typing import Any

_NOT_STRETCHED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of rotary scaling whose factor max_position_embeddings has in it already."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""Of what a config has of these the least counts."""


def longest_context(decoder: Mapping[str, Any]) -> int:
    """In tokens: more than that vLLM refuses."""
    positions = int(decoder.get("model_max_length") or min(decoder[name] for name in _POSITIONS if decoder.get(name)))
    if "gemma3" in decoder["model_type"]:
        return positions
    factors = [rotary["factor"] for rotary in _rotaries(decoder) if rotary.get("factor") and _kind(rotary) not in _NOT_STRETCHED]
    return int(positions * (factors[-1] if factors else 1))


def default_context(decoder: Mapping[str, Any]) -> int:
    """In tokens, where nobody asks for another: shorter than the longest for models whose quality falls beyond it (LongRoPE)."""
    if any(_kind(rotary) == "longrope" for rotary in _rotaries(decoder)):
        return int(decoder.get("original_max_position_embeddings") or longest_context(decoder))
    return longest_context(decoder)


def _rotaries(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rotary positions of all layers, or one for each kind of layer."""
    told = decoder.get("rope_parameters") or decoder.get("rope_scaling") or {}
    by_kind = [rotary for rotary in told.values() if isinstance(rotary, Mapping)]
    return by_kind or [told]


def _kind(rotary: Mapping[str, Any]) -> str:
    return str(rotary.get("rope_type", rotary.get("type", "default")))
