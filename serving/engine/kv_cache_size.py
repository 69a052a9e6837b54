"""A KV cache of a size that people mean: so many tokens, or so many sequences at full context. Runs in the engine's processes.

Only there it is known what a block is: vLLM's plan of groups, layers and pages for this model. The plan is made once for memory without
end, the blocks that the wish needs are counted in it, and vLLM then plans again with exactly their bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.engine.ledger_system import machine_memory
from serving.engine.replacing import replace
from serving.errors import StartError

TOKENS_KEY = "tokenport_kv_cache_tokens"
SEQUENCES_KEY = "tokenport_max_concurrency"
"""Keys of vLLM's `additional_config`, which reaches all its processes."""
_ENDLESS_BYTES = 2**60
_GIB = 2**30


@dataclass(frozen=True)
class Wish:
    """What was asked for, one of the two: `tokens` in the cache, or `sequences` of full length."""

    tokens: int | None = None
    sequences: int | None = None

    def __str__(self) -> str:
        return f"kv_cache_tokens={self.tokens}" if self.tokens is not None else f"max_concurrency={self.sequences}"


def wish_config(tokens: int | None, sequences: int | None) -> dict[str, int]:
    """The settings as entries of `additional_config`."""
    wished = {TOKENS_KEY: tokens, SEQUENCES_KEY: sequences}
    return {key: value for key, value in wished.items() if value is not None}


def wish_of(additional_config: Mapping[str, Any]) -> Wish | None:
    """The wish in `additional_config`, if there is one."""
    wish = Wish(additional_config.get(TOKENS_KEY), additional_config.get(SEQUENCES_KEY))
    return None if wish == Wish() else wish


def num_blocks(wish: Wish, max_model_len: int, blocks_per_sequence: int) -> int:
    """Blocks that hold what was asked for, and the one that vLLM keeps back.

    Raises:
        StartError: the tokens are fewer than one sequence may have.
    """
    if wish.tokens is None:
        return (wish.sequences or 0) * blocks_per_sequence + 1
    if wish.tokens < max_model_len:
        raise StartError(
            f"{wish} does not hold one sequence of max_model_len={max_model_len}; "
            f"set kv_cache_tokens to {max_model_len} or more, or max_model_len to {wish.tokens} or less"
        )
    return math.ceil(wish.tokens * blocks_per_sequence / max_model_len) + 1


def check_fit(wish: Wish, needed_bytes: Sequence[int], free_bytes: Sequence[int]) -> None:
    """Compare each rank's need with what it has.

    Raises:
        StartError: naming the rank that lacks most, what it needs and what it has.
    """
    rank = max(range(len(needed_bytes)), key=lambda rank: needed_bytes[rank] - free_bytes[rank])
    needed, free = needed_bytes[rank], free_bytes[rank]
    if needed > free:
        setting, asked = str(wish).split("=")
        fits = max(0, int(int(asked) * free / needed * 0.99))
        where = f" on rank {rank}" if len(needed_bytes) > 1 else ""
        advice = f"set {setting} to {fits} or less" if fits else "give it more memory or a smaller max_model_len"
        sizes = f"{wish} needs {needed / _GIB:.2f} GiB, {max(0, free) / _GIB:.2f} GiB are free"
        raise StartError(f"not enough memory for the KV cache{where}: {sizes}; {advice}")


def install_in_core() -> None:
    """Have the engine core plan for what was asked."""
    from vllm.v1.engine import core

    replace(core, "get_kv_cache_configs", _planning_for_the_wish)


def install_in_worker() -> None:
    """Have a worker offer what is free, not a fraction of all memory."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm.v1.worker.cpu_worker import CPUWorker

        replace(CPUWorker, "determine_available_memory", _offering_what_is_free)
    else:
        from vllm.v1.worker import gpu_worker

        replace(gpu_worker, "request_memory", _requesting_what_is_free)


def _planning_for_the_wish(plan: Callable[..., Any]) -> Callable[..., Any]:
    def get_kv_cache_configs(vllm_config: Any, kv_cache_specs: list[Any], available_memory: list[int]) -> Any:
        wish = wish_of(vllm_config.additional_config)
        if wish is None:
            return plan(vllm_config, kv_cache_specs, available_memory)
        from vllm.v1.core.kv_cache_utils import get_max_concurrency_for_kv_cache_config

        endless = plan(vllm_config, kv_cache_specs, [_ENDLESS_BYTES] * len(kv_cache_specs))
        if not any(one.kv_cache_tensors for one in endless):
            raise StartError(f"{wish} cannot be: the model has no KV cache")
        per_sequence = round(endless[0].num_blocks / get_max_concurrency_for_kv_cache_config(vllm_config, endless[0]))
        blocks = num_blocks(wish, vllm_config.model_config.max_model_len, per_sequence)
        # All tensors of a rank lie in one allocation, and each names its size.
        needed = [blocks * (one.kv_cache_tensors[0].size // one.num_blocks) if one.kv_cache_tensors else 0 for one in endless]
        check_fit(wish, needed, available_memory)
        return plan(vllm_config, kv_cache_specs, needed)

    return get_kv_cache_configs


def _offering_what_is_free(original: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM offers a fraction of the machine. Where the size is given, what is free now, with the weights loaded, is there to be used; ranks
    that share the machine share that."""

    def determine_available_memory(self: Any) -> int:
        if wish_of(self.vllm_config.additional_config) is None:
            available: int = original(self)
            return available
        if self._should_warm_up_model():
            self.model_runner.warming_up_model()
        return machine_memory()[1] // self.parallel_config.local_world_size

    return determine_available_memory


def _requesting_what_is_free(original: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM refuses a GPU of which not the whole fraction is free. Where the size is given, what is free is enough if it turns out to be."""

    def request_memory(init_snapshot: Any, cache_config: Any, external_weight_memory: int = 0) -> int:
        from vllm.config import get_current_vllm_config

        if wish_of(get_current_vllm_config().additional_config) is None:
            requested: int = original(init_snapshot, cache_config, external_weight_memory)
            return requested
        most = math.ceil(init_snapshot.total_memory * cache_config.gpu_memory_utilization) - external_weight_memory
        return min(most, init_snapshot.free_memory)

    return request_memory
