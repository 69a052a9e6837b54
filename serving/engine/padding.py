"""Zeros put into the weights while they load, where the heads or the MLP do not divide by the ranks. Runs in the engine's processes.

vLLM is told the padded sizes (`overrides`), and where each head goes travels in `additional_config`. A query head of zeros attends to all
tokens alike and a KV head of zeros answers nothing; the zero columns of `o_proj` and `down_proj` take both out of the sum.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.planner.sharding import EMPTY, Sharding

if TYPE_CHECKING:
    import torch

CONFIG_KEY = "tokenport_padding"
_PADDED = re.compile(r"\.(self_attn\.(?:q|k|v|o|qkv)_proj|mlp\.(?:gate|up|down|gate_up)_proj)\.(\w+)$")
_PER_ROW = ("weight", "bias", "weight_scale", "weight_zero_point")
_PER_TENSOR = ("input_scale", "input_zero_point", "output_scale")


@dataclass(frozen=True)
class Padding:
    """Where the parts of a checkpoint's layers go. `query_sources`, `kv_sources`: see `Sharding`; sizes as they are in the checkpoint, but
    for `padded_mlp_size`."""

    head_dim: int
    num_heads: int
    num_kv_heads: int
    mlp_size: int
    query_sources: list[int]
    kv_sources: list[int]
    padded_mlp_size: int

    def to_json(self) -> dict[str, Any]:
        """For vLLM's `additional_config`; `Padding(**...)` reads it."""
        return dataclasses.asdict(self)


def padding_of(sharding: Sharding) -> Padding:
    """What `sharding` asks of the weights."""
    shape = sharding.shape
    return Padding(
        head_dim=shape.head_dim,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        mlp_size=shape.intermediate_size,
        query_sources=sharding.query_sources(),
        kv_sources=sharding.kv_sources(),
        padded_mlp_size=sharding.intermediate_size,
    )


def overrides(sharding: Sharding) -> dict[str, Any]:
    """What vLLM is told in `hf_overrides` in place of the config's own sizes."""
    told: dict[str, Any] = {
        "num_attention_heads": sharding.num_heads,
        "num_key_value_heads": sharding.num_kv_slots,
        "head_dim": sharding.shape.head_dim,
        "intermediate_size": sharding.intermediate_size,
    }
    if sharding.shape.model_type == "qwen2":
        # vLLM's Qwen2 takes hidden_size / num_attention_heads for the head's size, whatever head_dim says. Its Llama is the same model
        # when told of the biases.
        told |= {"architectures": ["LlamaForCausalLM"], "qkv_bias": True, "attention_bias": False}
    return told


def padded_weights(weights: Iterable[tuple[str, "torch.Tensor"]], model: str) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Pass `weights`, of the checkpoint `model`, through; those of the model served with the zeros that its plan asks for."""
    from vllm.config import get_current_vllm_config

    config = get_current_vllm_config()
    plan = config.additional_config.get(CONFIG_KEY)
    if plan is None or model != config.model_config.model:
        yield from weights
        return
    padding = Padding(**plan)
    for name, tensor in weights:
        yield name, padded(name, tensor, padding)


def padded(name: str, tensor: "torch.Tensor", padding: Padding) -> "torch.Tensor":
    """`tensor` with its heads where they belong; itself if nothing of it is to be padded.

    Raises:
        ValueError: it belongs to a padded layer, and is of a kind that is not known here.
    """
    match = _PADDED.search(name)
    if match is None:
        return tensor
    layer, kind = match[1].rsplit(".", 1)[-1], match[2]
    if kind not in _PER_ROW + _PER_TENSOR:
        raise ValueError(f"{name}: a {kind} cannot be padded")
    if tensor.numel() == 1:
        return tensor
    if layer in ("o_proj", "down_proj"):
        return _with_places(tensor, _INPUTS[layer], padding, dim=1) if kind == "weight" else tensor
    # The scale of a row of zeros is any number but zero.
    return _with_places(tensor, _OUTPUTS[layer], padding, dim=0, fill=1 if kind == "weight_scale" else 0)


_INPUTS = {"o_proj": ("heads",), "down_proj": ("mlp",)}
_OUTPUTS = {
    "q_proj": ("heads",),
    "k_proj": ("kv_heads",),
    "v_proj": ("kv_heads",),
    "qkv_proj": ("heads", "kv_heads", "kv_heads"),
    "gate_proj": ("mlp",),
    "up_proj": ("mlp",),
    "gate_up_proj": ("mlp", "mlp"),
}
"""What lies one after another in a layer's columns, or its rows."""


def _with_places(tensor: "torch.Tensor", parts: tuple[str, ...], padding: Padding, *, dim: int, fill: int = 0) -> "torch.Tensor":
    import torch

    sizes = {
        "heads": padding.num_heads * padding.head_dim,
        "kv_heads": padding.num_kv_heads * padding.head_dim,
        "mlp": padding.mlp_size,
    }
    if tensor.shape[dim] != sum(sizes[part] for part in parts):
        raise ValueError(f"a tensor of {tuple(tensor.shape)} does not have the {' and '.join(parts)} that config.json says")
    pieces = tensor.split([sizes[part] for part in parts], dim)
    placed = [_placed(piece, part, padding, dim, fill) for piece, part in zip(pieces, parts, strict=True)]
    return placed[0] if len(placed) == 1 else torch.cat(placed, dim)


def _placed(piece: "torch.Tensor", part: str, padding: Padding, dim: int, fill: int) -> "torch.Tensor":
    """One part of a layer: its heads, or the MLP as a single head, at their places."""
    if part == "mlp":
        size, sources, padded_size = padding.mlp_size, [0], padding.padded_mlp_size
    else:
        size, sources = padding.head_dim, padding.query_sources if part == "heads" else padding.kv_sources
        padded_size = size * len(sources)
    if padded_size == piece.shape[dim]:
        return piece
    shape = list(piece.shape)
    shape[dim] = padded_size
    placed = piece.new_full(shape, fill)
    for place, source in enumerate(sources):
        if source != EMPTY:
            placed.narrow(dim, place * size, size).copy_(piece.narrow(dim, source * size, size))
    return placed
