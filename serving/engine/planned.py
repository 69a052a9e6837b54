"""What the planner says of the engine that is being started, in the ledger's parts: to be held to what the ledger then measures.

The sizes are those that vLLM settled on, the model is the one on disk with what the user overrides; padding is planned, not read.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving.engine.interface import Planned
from serving.engine.kv_cache_size import wish_of
from serving.engine.model_to_plan import model_to_plan, surprises_as_plan_errors
from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.memory.fit import best_plan
from serving.planner.plan import PerGpu, PlanRequest

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_NOT_PLANNED = {"lora_config": "the places of LoRA adapters", "speculative_config": "the draft model of speculative decoding"}


def planned(config: "VllmConfig", model: str, engine: Mapping[str, Any], devices: Sequence[Gpu]) -> Planned:
    """`config` as vLLM completed it, `model` a local folder or a hub id, `engine` vLLM's arguments that the user set. `devices`: those that
    can be seen from here; all are taken to be like the first."""
    if not devices:
        return Planned(reason="no device of the engine can be seen from this process")
    num_ranks = config.parallel_config.world_size * config.parallel_config.data_parallel_size
    try:
        with surprises_as_plan_errors():
            known = model_to_plan(model, engine)
            plan = best_plan(known, _request(config, engine), devices[0], num_ranks)
    except PlanError as error:
        return Planned(reason=str(error))
    left_out = tuple(f"{what}: not planned" for name, what in _NOT_PLANNED.items() if getattr(config, name) is not None)
    return Planned(_parts(plan.per_gpu, has_kv_cache_size=_has_kv_cache_size(config)), plan.kv_bytes_per_token, (*plan.assumed, *left_out))


def _request(config: "VllmConfig", engine: Mapping[str, Any]) -> PlanRequest:
    model, cache, parallel, scheduler = config.model_config, config.cache_config, config.parallel_config, config.scheduler_config
    wish = wish_of(config.additional_config)
    tokens = None
    if wish is not None:
        tokens = wish.tokens or (wish.sequences or 1) * model.max_model_len
    return PlanRequest(
        context=model.max_model_len,
        quantization=engine.get("quantization"),
        dtype=str(model.dtype).removeprefix("torch."),
        kv_cache_dtype=str(cache.cache_dtype),
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        data_parallel_size=parallel.data_parallel_size,
        gpu_memory_utilization=cache.gpu_memory_utilization,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_num_seqs=scheduler.max_num_seqs,
        enforce_eager=model.enforce_eager,
        enable_expert_parallel=parallel.enable_expert_parallel,
        kv_cache_tokens=tokens,
        kv_cache_memory_bytes=cache.kv_cache_memory_bytes,
    )


def _has_kv_cache_size(config: "VllmConfig") -> bool:
    return config.cache_config.kv_cache_memory_bytes is not None or wish_of(config.additional_config) is not None


def _parts(gpu: PerGpu, *, has_kv_cache_size: bool) -> dict[str, Interval]:
    """Without a size of its own the KV cache is what the others leave of the budget."""
    others = {
        "weights": gpu.weights_bytes,
        "activation_peak": gpu.activation_peak_bytes,
        "cuda_graph": gpu.cuda_graph_bytes,
        "non_torch": gpu.non_torch_bytes,
    }
    taken, budget = sum(others.values(), exactly(0)), gpu.budget_bytes
    left = Interval(*(max(0.0, end) for end in (budget.estimate - taken.estimate, budget.low - taken.high, budget.high - taken.low)))
    return {**others, "kv_cache": gpu.kv_cache_bytes if has_kv_cache_size else left}
