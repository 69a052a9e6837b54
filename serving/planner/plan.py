"""What is asked of a plan, and what it answers. The arithmetic is in the files beside: weights, KV cache, overheads, fit."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.planner.interval import Interval

AS_IT_IS = "none"
"""The `quantization` that changes nothing. In a plan it means what None does; a ranking, which else tries 8 bits too, is held to it."""


@dataclass(frozen=True)
class PlanRequest:
    """`context` in tokens, None for the model's own; `concurrency` sequences of that length at once. `quantization`: vLLM's names,
    `int8`, which is Tokenport's, and `none`; None for what the checkpoint is. Sizes are vLLM's; `tensor_parallel_size` None for the
    fewest that surely hold the model. `max_num_batched_tokens` and `max_num_seqs` None for vLLM's default on that GPU. The size of the KV
    cache instead of the concurrency, if either is not None: `kv_cache_tokens` of a replica, or `kv_cache_memory_bytes` on each GPU."""

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
    enable_expert_parallel: bool = False
    kv_cache_tokens: int | None = None
    kv_cache_memory_bytes: int | None = None


@dataclass(frozen=True)
class PerGpu:
    """Of the GPU that holds the most, in bytes. `kv_cache_bytes` for what was asked for; `non_torch_bytes` the CUDA context, NCCL and
    whatever else is outside torch's allocator; `usable_bytes` as torch sees the device; `budget_bytes` what all parts together may take:
    gpu_memory_utilization of it, and the part outside torch that is there before the engine takes its share."""

    weights_bytes: Interval
    kv_cache_bytes: Interval
    activation_peak_bytes: Interval
    cuda_graph_bytes: Interval
    non_torch_bytes: Interval
    total_bytes: Interval
    usable_bytes: Interval
    budget_bytes: Interval


PARTS = {
    "weights": "weights_bytes",
    "KV cache": "kv_cache_bytes",
    "activations": "activation_peak_bytes",
    "CUDA graphs": "cuda_graph_bytes",
    "outside torch": "non_torch_bytes",
}
"""The parts of `PerGpu` that add up, by the words for them."""


@dataclass(frozen=True)
class Remedy:
    """A change that makes it fit, planned and found to; `settings` what it is in Tokenport's settings."""

    change: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Division:
    """The model over `tensor_parallel_size` GPUs. `is_padded`: filled up with zeros. What zeros and copies of KV heads cost on all of them
    together. `refused`: why it cannot be divided so, None if it can."""

    tensor_parallel_size: int
    is_padded: bool = False
    added_weights_bytes: float = 0.0
    added_kv_bytes_per_token: float = 0.0
    refused: str | None = None


@dataclass(frozen=True)
class Plan:
    """`fits`: the estimates of all parts together are within the estimate of the budget; `is_sure` if the ends of the intervals that speak
    against it say the same. `request` with every size settled. `kv_bytes_per_token` over all ranks of a replica, as vLLM counts them
    (`KvCache.bytes_per_token`); `max_kv_tokens` what a replica's cache holds. `max_context` at the concurrency asked for, `max_concurrency`
    at the context, over all replicas, and no more than they run at once; both 0 where the weights leave no room. If it does not fit,
    `shortfall_bytes` a GPU, and the `remedies`, cheapest first. `divisions`: which sizes there are, and what each costs.
    `assumed`: a line for each value that nobody told."""

    fits: bool
    is_sure: bool
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
    divisions: tuple[Division, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `tokenport plan --json` prints it."""
        told = dataclasses.asdict(self)
        told["per_gpu"] = {name: {end: round(value) for end, value in interval.items()} for name, interval in told["per_gpu"].items()}
        return told | {"shortfall_bytes": round(self.shortfall_bytes), "remedies": list(told["remedies"]), "assumed": list(self.assumed)}
