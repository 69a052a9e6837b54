"""What the KV cache takes: bytes of a block, blocks of a sequence, as vLLM 0.32 counts them (vllm/v1/kv_cache_interface.py and
vllm/v1/core/kv_cache_utils.py).

Layers that look back equally far are cut into groups of equal size, which take turns in one pool of blocks; where all layers look at the
whole context there is one group, and a token takes the same bytes anywhere.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import PlanError
from serving.planner.hardware import Device
from serving.planner.memory.layout import Layout
from serving.planner.memory.weight_format import checkpoint_config
from serving.planner.model import FLOAT_BYTES, Model

_BLOCK_SIZES: dict[Device, int] = {"cuda": 16, "cpu": 128}
"""Tokens of a block. Of what is planned only the rounding of a sequence depends on it."""
_LATENT_BLOCK_SIZE = 16
"""Of latent attention, on the CPU too (`CpuPlatform` in vllm/platforms/cpu.py)."""
_NUM_BATCHES: dict[Device, int] = {"cuda": 2, "cpu": 1}
"""Steps under way at once: with asynchronous scheduling, vLLM's default but for CPUs, one running and one being prepared; with stages one
each and one more (`max_concurrent_batches` in vllm/config/vllm.py)."""
_ONE_BYTE = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
_GROUP_TOLERANCE = 1.5
"""vLLM fills the smaller kind of layers up where the larger has fewer than so many times its number, instead of cutting groups by it."""


@dataclass(frozen=True)
class Window:
    """Tokens that a layer looks back: always so many, or `is_chunk`, to where its own part of so many began."""

    num_tokens: int
    is_chunk: bool = False


@dataclass(frozen=True)
class Group:
    """Layers that share a table of blocks: how many of them each stage has. `window`: None where they look at everything."""

    layers_of_stage: tuple[int, ...]
    window: Window | None


@dataclass(frozen=True)
class KvCache:
    """`block_size`: tokens of a block. `layer_bytes`: a token of one layer on one rank. `in_flight`: tokens that steps under way may hold
    beyond a window."""

    groups: tuple[Group, ...]
    block_size: int
    layer_bytes: int
    num_ranks_of_stage: int
    in_flight: int

    @property
    def block_bytes(self) -> int:
        """On the rank that holds the most; the other stages of a replica have the same number of blocks."""
        return max(self._stage_block_bytes())

    @property
    def sees_everything(self) -> bool:
        """Whether all layers look at the whole context."""
        return all(group.window is None for group in self.groups)

    def blocks(self, context: int) -> int:
        """Of a sequence of `context` tokens, over all groups."""
        return sum(self._group_blocks(group, context) for group in self.groups)

    def bytes_per_token(self, context: int) -> int:
        """Over all ranks of a replica: exact where all layers see everything; else what a sequence of `context` tokens takes, divided by
        them."""
        block_bytes = sum(self._stage_block_bytes()) * self.num_ranks_of_stage
        if self.sees_everything:
            return block_bytes // self.block_size
        return math.ceil(self.blocks(context) * block_bytes / context)

    def longest_context(self, num_blocks: int, num_sequences: int, limit: int) -> int:
        """The most tokens, `limit` at most, that each of `num_sequences` can have in `num_blocks`, of which vLLM keeps one; 0 for none."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if num_sequences * self.blocks(middle) <= num_blocks - 1 else (low, middle - 1)
        return low

    def _group_blocks(self, group: Group, context: int) -> int:
        window = group.window
        if window is None:
            return -(-context // self.block_size)
        if window.is_chunk:
            return -(-min(window.num_tokens + self.in_flight, context) // self.block_size)
        # One more, since a window need not begin where a block does.
        return -(-min(window.num_tokens - 1 + self.in_flight, context) // self.block_size) + 1

    def _stage_block_bytes(self) -> list[int]:
        stages = zip(*(group.layers_of_stage for group in self.groups), strict=True)
        return [max(layers) * self.layer_bytes * self.block_size for layers in stages]


def kv_cache_of(
    model: Model, layout: Layout, kv_cache_dtype: str, float_bytes: int, num_batched_tokens: int, device: Device = "cuda"
) -> KvCache:
    """`num_batched_tokens` of one step.

    Raises:
        PlanError: the type, or the layout of the model's layers, is not planned.
    """
    number_bytes = kv_number_bytes(model, kv_cache_dtype, float_bytes)
    windows = layer_windows(model.decoder)
    steps = _NUM_BATCHES[device] if layout.num_stages == 1 else layout.num_stages + 1
    return KvCache(
        groups=tuple(_groups(windows, layout)),
        block_size=_LATENT_BLOCK_SIZE if model.decoder.get("kv_lora_rank") else _BLOCK_SIZES[device],
        layer_bytes=_layer_bytes(model.decoder, layout, number_bytes),
        num_ranks_of_stage=layout.sharding.num_ranks,
        in_flight=steps * num_batched_tokens,
    )


def kv_number_bytes(model: Model, kv_cache_dtype: str, float_bytes: int) -> int:
    """Of one number in the cache.

    Raises:
        PlanError: the type is not planned.
    """
    if kv_cache_dtype == "auto":
        scheme = (checkpoint_config(model.config) or {}).get("kv_cache_scheme")
        return 1 if scheme else float_bytes
    if kv_cache_dtype in _ONE_BYTE:
        return 1
    if kv_cache_dtype in FLOAT_BYTES:
        return FLOAT_BYTES[kv_cache_dtype]
    known = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")
    near = difflib.get_close_matches(kv_cache_dtype.lower(), known, n=1, cutoff=0)[0]
    raise PlanError(f"kv_cache_dtype={kv_cache_dtype!r} is not planned (nearest: {near}); it can be {', '.join(known)}")


def layer_windows(decoder: Mapping[str, Any]) -> list[Window | None]:
    """For each layer how far it looks back, None where it looks at everything.

    Raises:
        PlanError: the config has a pattern that is not planned.
    """
    number = decoder["num_hidden_layers"]
    if decoder.get("attention_chunk_size"):
        chunk = Window(decoder["attention_chunk_size"], is_chunk=True)
        return [chunk if is_chunked else None for is_chunked in _chunked_layers(decoder, number)]
    if not decoder.get("sliding_window") or not decoder.get("use_sliding_window", True):
        return [None] * number
    window = Window(decoder["sliding_window"])
    if decoder.get("layer_types"):
        return [window if kind == "sliding_attention" else None for kind in decoder["layer_types"][:number]]
    pattern = decoder.get("sliding_window_pattern") or _PATTERNS.get(decoder["model_type"], 0)
    if not isinstance(pattern, int) or pattern < 0:
        raise PlanError(f"config.json: sliding_window_pattern={pattern!r} is no whole number, and layer_types is missing")
    if pattern:
        return [None if (layer + 1) % pattern == 0 else window for layer in range(number)]
    if not decoder.get("use_sliding_window"):
        return [window] * number
    first = decoder.get("max_window_layers")
    return [None if layer < (_QWEN_WINDOWLESS if first is None else first) else window for layer in range(number)]


def _chunked_layers(decoder: Mapping[str, Any], number: int) -> list[bool]:
    """Those with rotary positions, of which Llama 4 has three, and then one without (`Llama4Attention` in vLLM)."""
    if decoder.get("layer_types"):
        return [kind == "chunked_attention" for kind in decoder["layer_types"][:number]]
    interval = decoder.get("no_rope_layer_interval") or _PATTERNS["llama4_text"]
    told = decoder.get("no_rope_layers") or [(layer + 1) % interval for layer in range(number)]
    return [bool(has_positions) for has_positions in told]


_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "olmo3": 4, "gpt_oss": 2, "exaone4": 4, "llama4_text": 4}
"""Of so many layers the last looks at everything: the defaults of Transformers' configs."""
_QWEN_WINDOWLESS = 28
"""Layers that come first in Qwen's models and look at everything: `max_window_layers` of Transformers' configs."""


def _layer_bytes(decoder: Mapping[str, Any], layout: Layout, number_bytes: int) -> int:
    """Keys and values of the KV heads that a rank holds, or of latent attention the one vector that all ranks hold."""
    if decoder.get("kv_lora_rank"):
        return int((decoder["kv_lora_rank"] + decoder["qk_rope_head_dim"]) * number_bytes)
    sharding = layout.sharding
    return 2 * (sharding.num_kv_held // sharding.num_ranks) * sharding.shape.head_dim * number_bytes


def _groups(windows: list[Window | None], layout: Layout) -> list[Group]:
    """vLLM's `_get_kv_cache_groups_uniform_page_size`: of each kind every so-manieth layer, so that the stages have equal parts."""
    kinds: dict[Window | None, list[int]] = {}
    for layer, window in enumerate(windows):
        kinds.setdefault(window, []).append(layer)
    fewest, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < fewest * _GROUP_TOLERANCE else fewest
    stages = layout.stage_layers
    groups = []
    for window, layers in kinds.items():
        count = -(-len(layers) // size)
        for first in range(count):
            members = layers[first::count]
            groups.append(Group(tuple(sum(layer in stage for layer in members) for stage in stages), window))
    return groups
