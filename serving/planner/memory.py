"""What one device must hold of a sharded model, and the fewest devices that hold it: weights, KV cache, activations, the runtime.

Weights are counted from the headers of the safetensors files, or from the model's shape where there are none. What the engine really took
is known only after it has started; this says beforehand whether it is worth trying. Knows no device: their sizes come in.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import NoFit
from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Precision, Sharding

GIB = 2**30
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_RUNTIME_BYTES = GIB
"""On each device: CUDA's context and libraries, NCCL's buffers, the CUDA graphs. An allowance; the engine measures it when it starts."""


@dataclass(frozen=True)
class Weights:
    """Numbers of a checkpoint by what becomes of them. `linear`: floats in linear layers, split, and quantized if asked for. `embedding`:
    floats of the vocabulary's matrices, split. `small`: floats on every rank. `fixed_bytes`: quantized already, split as they are."""

    linear: int = 0
    embedding: int = 0
    small: int = 0
    fixed_bytes: int = 0


@dataclass(frozen=True)
class Load:
    """What is asked of the engine. `num_tokens` in the KV cache of a replica, or `kv_cache_bytes` on each device if not None; the tokens of
    one step, the sequences that run at once; bytes of one activation; over how many pipeline stages the layers are spread."""

    num_tokens: int
    kv_cache_bytes: int | None
    num_batched_tokens: int
    num_sequences: int
    precision: Precision = Precision()  # noqa: RUF009 - frozen
    float_bytes: int = 2
    num_stages: int = 1


@dataclass(frozen=True)
class Need:
    """Bytes on one device."""

    weights_bytes: float
    kv_cache_bytes: float
    activation_bytes: float
    runtime_bytes: float = _RUNTIME_BYTES

    @property
    def total_bytes(self) -> float:
        """All of them together."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.runtime_bytes


def read_weights(folder: Path, *, has_tied_embeddings: bool) -> Weights | None:
    """Count the safetensors files in `folder`, of which only the headers are read; None if there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    tensors = {name: entry for file in files for name, entry in _header(file).items() if name != "__metadata__"}
    return count_weights(tensors, has_tied_embeddings=has_tied_embeddings) if tensors else None


def count_weights(tensors: Mapping[str, Mapping[str, Any]], *, has_tied_embeddings: bool) -> Weights:
    """`tensors` as in a safetensors header: `dtype`, `shape` and `data_offsets` by name."""
    linear = embedding = small = fixed_bytes = 0
    for name, tensor in tensors.items():
        start, end = tensor["data_offsets"]
        size = math.prod(tensor["shape"])
        if has_tied_embeddings and name.endswith("lm_head.weight"):
            continue  # the engine leaves the copy in the file
        if tensor["dtype"] not in _FLOATS:
            fixed_bytes += end - start
        elif len(tensor["shape"]) < 2:
            small += size
        elif "embed" in name or "lm_head" in name:
            embedding += size
        else:
            linear += size
    return Weights(linear, embedding, small, fixed_bytes)


def weights_of_shape(shape: ModelShape) -> Weights:
    """Of a dense decoder with gated MLPs; norms and biases are left out."""
    attention = 2 * (shape.num_heads + shape.num_kv_heads) * shape.head_dim
    linear = shape.num_layers * shape.hidden_size * (attention + 3 * shape.intermediate_size)
    return Weights(linear=linear, embedding=shape.vocab_size * shape.hidden_size * (1 if shape.has_tied_embeddings else 2))


def need(sharding: Sharding, weights: Weights, load: Load) -> Need:
    """Bytes on the device that holds the most."""
    num_ranks = sharding.num_ranks
    split_bytes = weights.linear * load.precision.weight_bytes + weights.fixed_bytes + sharding.added_bytes(load.precision)[0]
    # A pipeline's first and last stage hold the vocabulary whole.
    weights_bytes = split_bytes / num_ranks / load.num_stages + (weights.embedding / num_ranks + weights.small) * load.float_bytes
    kv_cache_bytes: float
    if load.kv_cache_bytes is not None:
        kv_cache_bytes = load.kv_cache_bytes
    else:
        kv_cache_bytes = load.num_tokens * sharding.kv_bytes_per_token(load.precision) / num_ranks / load.num_stages
    return Need(weights_bytes, kv_cache_bytes, _activation_bytes(sharding, load))


def _activation_bytes(sharding: Sharding, load: Load) -> float:
    """An upper estimate of one step's peak: for each token four hidden states (residual, norm, input and output of a layer), and on this
    rank q, k, v and attention's output, or gate, up and their product, whichever is more; and the logits of every sequence as 32-bit
    floats, twice, since the sampler works on a copy."""
    shape = sharding.shape
    attention = (2 * sharding.num_heads + 2 * sharding.num_kv_held) * shape.head_dim
    widest = max(attention, 3 * sharding.intermediate_size) / sharding.num_ranks
    return load.num_batched_tokens * (4 * shape.hidden_size + widest) * load.float_bytes + 2 * 4 * load.num_sequences * shape.vocab_size


def smallest_fit(shardings: Iterable[Sharding], weights: Weights, load: Load, usable_bytes: Sequence[float]) -> Sharding:
    """The first of `shardings`, ordered by their number of ranks, that fits. `usable_bytes`: what the engine may take of each device.

    Raises:
        NoFit: none does; says what the largest needs and what there is.
    """
    shortest: tuple[Need, Sharding] | None = None
    for sharding in shardings:
        needed = need(sharding, weights, load)
        if needed.total_bytes <= min(usable_bytes[: sharding.num_ranks * load.num_stages]):
            return sharding
        if shortest is None or needed.total_bytes < shortest[0].total_bytes:
            shortest = needed, sharding
    if shortest is None:
        raise NoFit("no number of the visible GPUs can share this model")
    needed, sharding = shortest
    has = min(usable_bytes[: sharding.num_ranks * load.num_stages])
    raise NoFit(
        f"the model does not fit: on each of {sharding.num_ranks * load.num_stages} GPUs it needs {needed.total_bytes / GIB:.1f} GiB "
        f"({needed.weights_bytes / GIB:.1f} weights, {needed.kv_cache_bytes / GIB:.1f} KV cache, {needed.activation_bytes / GIB:.1f} "
        f"activations, {needed.runtime_bytes / GIB:.1f} runtime), has {has / GIB:.1f} GiB; take more or larger GPUs, a smaller "
        "max_model_len, or quantization=int8"
    )


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """8 bytes with the header's length, then the header as JSON: https://github.com/huggingface/safetensors#format"""
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, dict[str, Any]] = json.loads(opened.read(size))
    return header
