"""What is asked of a plan, and what it answers. The arithmetic is in the files beside: weights, KV cache, overheads, fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.planner.interval import Interval


@dataclass(frozen=True)
class PlanRequest:
    """`context` in tokens, None for the model's own; `concurrency` sequences of that length at once. `quantization`: vLLM's names and
    `int8`, which is Tokenport's, None for what the checkpoint is. Sizes are vLLM's; `tensor_parallel_size` None for the fewest that hold
    the model. `max_num_batched_tokens` and `max_num_seqs` None for vLLM's default on that GPU."""

    context: int | None = None
    concurrency: int = 1
    quantization: str | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    enforce_eager: bool = False


@dataclass(frozen=True)
class PerGpu:
    """Of the GPU that holds the most, in bytes. `kv_cache_bytes` for what was asked for; `usable_bytes` as torch sees the device."""

    weights_bytes: Interval
    kv_cache_bytes: Interval
    activation_peak_bytes: Interval
    cuda_graph_bytes: Interval
    non_torch_bytes: Interval
    total_bytes: Interval
    usable_bytes: Interval


@dataclass(frozen=True)
class Remedy:
    """A change that makes it fit, `settings` what it is in Tokenport's settings."""

    change: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """`request` with every size settled. `kv_bytes_per_token` over all ranks of a replica, as vLLM counts them; `max_kv_tokens` what a
    replica's cache holds. `max_context` at the concurrency asked for, `max_concurrency` at the context. If it does not fit,
    `shortfall_bytes` a GPU, and the `remedies`, cheapest first. `assumed`: a line for each value that nobody told."""

    fits: bool
    request: PlanRequest
    num_gpus: int
    per_gpu: PerGpu
    kv_bytes_per_token: int
    max_kv_tokens: int
    max_context: int
    max_concurrency: int
    shortfall_bytes: float
    remedies: tuple[Remedy, ...]
    assumed: tuple[str, ...]
