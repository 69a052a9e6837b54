"""Whether a model fits what it is to run on, by the planner: the fewest GPUs that hold it, and a refusal of what cannot fit.

A plan knows figures within ends: `auto` takes a size that fits at the high end, else by the estimate, and refused is only what does not fit
at the low end either. What the planner cannot plan is left to vLLM.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from serving.engine.kv_cache_size import Wish
from serving.engine.model_to_plan import model_to_plan, surprises_as_plan_errors
from serving.engine.parallel import is_spread, replicas_here, size_of
from serving.engine_arguments import engine_arguments
from serving.errors import NoFit, PlanError, SettingsError
from serving.planner.hardware import Gpu
from serving.planner.memory.context_limit import default_context
from serving.planner.memory.fit import best_plan, make_plan
from serving.planner.memory.plan_words import no_fit_line
from serving.planner.model import Model
from serving.planner.plan import Plan, PlanRequest

logger = logging.getLogger("tokenport.engine")

_SHORTEST_CONTEXT = 2048
"""Tokens to have room for where vLLM is to choose `max_model_len` by the memory there is: less is hardly worth serving."""
_CPU_TOKENS, _CPU_SEQUENCES = 2048, 128
"""vLLM's server takes so many for each rank where nobody says (`get_batch_defaults` in vllm/engine/arg_utils.py)."""
_OFFLOADING = ("cpu_offload_gb", "offload_group_size")
"""Settings by which weights are elsewhere than on the device."""


def smallest_size(model: str, engine: Mapping[str, Any], sizes: Iterable[int], devices: Sequence[Gpu], wish: Wish) -> int:
    """The first of `sizes`, which ascend, with which the model surely fits on `devices`, of which the smallest counts; where there is none,
    the first by the estimate.

    Raises:
        NoFit: none does; says what the last needs, what there is, and what would do.
        SettingsError: the planner cannot tell.
    """
    if not devices:
        raise NoFit("there is no GPU that this process may use")
    gpu, refusal = _smallest(devices), "no number of the visible GPUs can share this model"
    last: tuple[Model, PlanRequest] | None = None
    estimated: int | None = None
    try:
        with surprises_as_plan_errors():
            known = model_to_plan(model, engine)
            request = _request(known, engine, gpu, wish)
    except PlanError as error:
        raise SettingsError(f"tensor_parallel_size=auto: {error}; write the number") from error
    for size in sizes:
        tried = replace(request, tensor_parallel_size=size)
        try:
            with surprises_as_plan_errors():
                plan = best_plan(known, tried, gpu, len(devices))
        except PlanError as error:
            refusal = str(error)
            continue
        if plan.fits and plan.is_sure:
            return size
        if plan.fits and estimated is None:
            estimated = size
        last = known, tried
    if estimated is not None:
        return estimated
    if last is None:
        raise NoFit(refusal)
    raise NoFit(no_fit_line(make_plan(*last, gpu, len(devices))))


def check_fit(model: str, engine: Mapping[str, Any], devices: Sequence[Gpu], wish: Wish) -> None:
    """Refuse what cannot fit. `engine` are vLLM's arguments with their sizes settled; `devices` the GPUs, or of the CPU each rank's part.

    Raises:
        NoFit: says the parts, what is lacking, and what would do.
    """
    if not devices or is_spread(engine) or any(engine.get(name) for name in _OFFLOADING):
        return
    gpu = _smallest(devices)
    try:
        with surprises_as_plan_errors():
            known = model_to_plan(model, engine)
            plan = make_plan(known, _request(known, engine, gpu, wish), gpu, len(devices))
    except PlanError as error:
        logger.info("whether the model fits is not known before it is loaded", extra={"reason": str(error)})
        return
    if _is_hopeless(plan):
        raise NoFit(no_fit_line(plan, gpu.device))


def _is_hopeless(plan: Plan) -> bool:
    """At the low end too. With a KV cache given in bytes vLLM goes beyond its share of the device."""
    if plan.request.kv_cache_memory_bytes is not None:
        return plan.per_gpu.total_bytes.low > plan.per_gpu.usable_bytes.high
    return not plan.fits and plan.is_sure


def _smallest(devices: Sequence[Gpu]) -> Gpu:
    return min(devices, key=lambda device: device.memory_bytes)


def _request(known: Model, engine: Mapping[str, Any], gpu: Gpu, wish: Wish) -> PlanRequest:
    """What the settings ask for; where they are silent, vLLM's defaults. Of a CPU all may be used: how much vLLM takes is settled later."""
    on_cpu, size = gpu.device == "cpu", size_of(engine, "tensor_parallel_size")
    longest, length = default_context(known.decoder), engine.get("max_model_len") or 0
    context = length if length > 0 else min(longest, _SHORTEST_CONTEXT) if length < 0 else longest
    share = 1.0 if on_cpu else float(engine.get("gpu_memory_utilization", engine_arguments()["gpu_memory_utilization"].default))
    return PlanRequest(
        context=context,
        quantization=engine.get("quantization"),
        dtype=str(engine.get("dtype", "auto")),
        kv_cache_dtype=str(engine.get("kv_cache_dtype", "auto")),
        tensor_parallel_size=size,
        pipeline_parallel_size=size_of(engine, "pipeline_parallel_size"),
        data_parallel_size=replicas_here(engine),
        gpu_memory_utilization=share,
        max_num_batched_tokens=engine.get("max_num_batched_tokens") or (_CPU_TOKENS * size if on_cpu else None),
        max_num_seqs=engine.get("max_num_seqs") or (_CPU_SEQUENCES * size if on_cpu else None),
        enforce_eager=bool(engine.get("enforce_eager", False)),
        enable_expert_parallel=bool(engine.get("enable_expert_parallel", False)),
        kv_cache_tokens=wish.tokens or (wish.sequences * context if wish.sequences else None),
        kv_cache_memory_bytes=engine.get("kv_cache_memory_bytes"),
    )
