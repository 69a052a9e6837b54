"""How long a context a model may have, as vLLM reads it from the config (`_get_and_verify_max_len` in vllm/config/model.py)."""

from collections.abc import Mapping
from typing import Any

_NOT_STRETCHED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of rotary scaling whose factor max_position_embeddings has in it already."""


def longest_context(decoder: Mapping[str, Any]) -> int:
    """In tokens: more than that vLLM refuses."""
    positions = int(decoder.get("model_max_length") or decoder["max_position_embeddings"])
    scaling, kind = _scaling(decoder)
    if "gemma3" in decoder["model_type"] or kind in _NOT_STRETCHED:
        return positions
    return int(positions * (scaling.get("factor") or 1))


def default_context(decoder: Mapping[str, Any]) -> int:
    """In tokens, where nobody asks for another: shorter than the longest for models whose quality falls beyond it (LongRoPE)."""
    if _scaling(decoder)[1] == "longrope":
        return int(decoder.get("original_max_position_embeddings") or longest_context(decoder))
    return longest_context(decoder)


def _scaling(decoder: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    scaling = decoder.get("rope_parameters") or decoder.get("rope_scaling") or {}
    return scaling, str(scaling.get("rope_type", scaling.get("type", "default")))
