"""Bytes of the weights on the rank that holds the most, as vLLM 0.32 divides them, with the tables that it makes beside them.

Exact for what is in safetensors headers; where it is not known whether something is divided, the estimate is that it is not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.planner.checkpoint.families import FAMILIES, RUN_BY_TRANSFORMERS
from serving.planner.checkpoint.parts import Part
from serving.planner.checkpoint.placement import Place
from serving.planner.interval import Interval, exactly
from serving.planner.memory.layout import Layout
from serving.planner.memory.weight_format import WeightFormat
from serving.planner.model import Model


def weights_bytes(model: Model, layout: Layout, weight_format: WeightFormat | None, float_bytes: int) -> Interval:
    """On the rank of the stage that holds the most. `weight_format`: what linear layers are made into while loading, None for nothing;
    `float_bytes` of a number that stays a float."""
    stages = [_stage_bytes(model, layout, number, weight_format, float_bytes) for number in range(layout.num_stages)]
    return max(stages, key=lambda stage: stage.estimate)


def _stage_bytes(model: Model, layout: Layout, stage: int, weight_format: WeightFormat | None, float_bytes: int) -> Interval:
    layers = layout.stage_layers[stage]
    is_quantized = weight_format is not None or model.checkpoint_method is not None
    total = exactly(_added_bytes(model.decoder, layout, len(layers), float_bytes, is_quantized=is_quantized))
    for part in _parts_of(model.parts, layout, stage, is_tied=model.shape.has_tied_embeddings):
        total += _part_bytes(part, layout, weight_format, float_bytes)
    return total


def _parts_of(parts: Sequence[Part], layout: Layout, stage: int, *, is_tied: bool) -> list[Part]:
    """Those that the ranks of `stage` hold. A vocabulary that is used twice is on the first stage and on the last."""
    layers, is_first, is_last = layout.stage_layers[stage], stage == 0, stage == layout.num_stages - 1
    return [
        part
        for part in parts
        if (part.layer in layers if part.layer is not None else is_last if part.is_last else is_first)
        or (is_last and is_tied and part.place is Place.VOCABULARY)
    ]


def _part_bytes(part: Part, layout: Layout, weight_format: WeightFormat | None, float_bytes: int) -> Interval:
    share = float(layout.share(part.place))
    if part.can_quantize and weight_format is not None and (part.place is Place.EXPERTS or not weight_format.experts_only):
        rows = part.rows * (1 if part.place.is_by_columns else share)
        size, spread = weight_format.weight_bytes(part.numbers * share, rows), weight_format.spread
    else:
        size, spread = (part.numbers * float_bytes + part.fixed_bytes) * share, part.spread
    # Towers of other inputs, and what is not known, may be divided after all.
    least = size / layout.sharding.num_ranks if part.place in (Place.TOWER, Place.UNKNOWN) else size * (1 - spread)
    return Interval(size, least, size * (1 + spread))


def _added_bytes(decoder: Mapping[str, Any], layout: Layout, num_layers: int, float_bytes: int, *, is_quantized: bool) -> float:
    """What no file has: the table of rotary positions, which all layers share; of quantised latent attention the two halves of kv_b_proj,
    which decoding needs as floats (`process_weights_after_loading` in vllm/model_executor/layers/attention/mla_attention.py); and GPT
    BigCode's mask, a byte for each two positions."""
    latent = 0.0
    if decoder.get("kv_lora_rank") and is_quantized:
        heads = layout.sharding.num_heads / layout.sharding.num_ranks
        latent = num_layers * heads * (decoder["qk_nope_head_dim"] + decoder["v_head_dim"]) * decoder["kv_lora_rank"]
    mask_bytes = decoder["max_position_embeddings"] ** 2 if decoder["model_type"] == "gpt_bigcode" else 0
    return (latent + _rotary_numbers(decoder, layout)) * float_bytes + mask_bytes


def _rotary_numbers(decoder: Mapping[str, Any], layout: Layout) -> float:
    """A cosine and a sine for each position and half of the rotated dimensions (`RotaryEmbedding` in vLLM); Transformers' code has no such
    table."""
    family = FAMILIES.get(decoder["model_type"])
    has_other_positions = decoder["model_type"] == "bloom" or decoder.get("alibi") or (family and family.position_rows is not None)
    if has_other_positions or decoder["model_type"] in RUN_BY_TRANSFORMERS:
        return 0
    scaling = decoder.get("rope_parameters") or decoder.get("rope_scaling") or {}
    positions = decoder["max_position_embeddings"]
    if scaling.get("rope_type", scaling.get("type")) == "yarn":
        positions = max(positions, (scaling.get("original_max_position_embeddings") or positions) * (scaling.get("factor") or 1))
    part = decoder.get("partial_rotary_factor") or scaling.get("partial_rotary_factor") or decoder.get("rotary_pct") or 1
    rotated = decoder.get("qk_rope_head_dim") or int(layout.sharding.shape.head_dim * part)
    # Gemma 3 has a table for its local layers, and one for the others.
    is_by_kind = bool(scaling) and all(isinstance(value, Mapping) for value in scaling.values())
    num_tables = 2 if is_by_kind or "rope_local_base_freq" in decoder else 1
    return float(positions * rotated * num_tables)
