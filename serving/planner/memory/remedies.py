"""What makes a model fit that does not: each change is planned, and named only if it does. Cheapest first: numbers of 8 bits cost quality
that can be measured, a shorter context what is served, more GPUs money."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.plan import Plan, PlanRequest, Remedy

_MOST_GPUS = 64
"""Eight machines of eight: a model that needs more is not one for this question."""

Planning = Callable[[Model, PlanRequest, Gpu, int], Plan]


def remedies_of(plan: Plan, request: PlanRequest, model: Model, gpu: Gpu, num_gpus: int, planning: Planning) -> Iterator[Remedy]:
    """For `plan`, which does not fit what `request` asks of `num_gpus`; `planning` makes other plans."""
    yield from _smaller_cache(request, model, gpu, num_gpus, planning)
    in_8_bits = _in_8_bits(plan, model, gpu)
    closing = [change for change in in_8_bits if _fits(planning, model, replace(request, **change), gpu, num_gpus)]
    if not closing and len(in_8_bits) > 1:
        both = {name: value for change in in_8_bits for name, value in change.items()}
        closing = [both] if _fits(planning, model, replace(request, **both), gpu, num_gpus) else []
    for change in closing:
        yield Remedy(" and ".join(f"{name}={value}" for name, value in change.items()), change)
    if _fits(planning, model, replace(request, context=plan.max_context), gpu, num_gpus):
        yield Remedy(f"a context of {plan.max_context} tokens", {"max_model_len": plan.max_context})
    more = _more_gpus(request, model, gpu, num_gpus, planning)
    if more is not None:
        size = more.request.tensor_parallel_size
        yield Remedy(f"{more.num_gpus} GPUs: tensor_parallel_size={size}", {"tensor_parallel_size": size})


def _smaller_cache(request: PlanRequest, model: Model, gpu: Gpu, num_gpus: int, planning: Planning) -> Iterator[Remedy]:
    """Where the size of the KV cache was asked for, the one that there is room for."""
    in_bytes, in_tokens = request.kv_cache_memory_bytes is not None, request.kv_cache_tokens is not None
    if not (in_bytes or in_tokens):
        return
    try:
        left = planning(model, replace(request, kv_cache_memory_bytes=None, kv_cache_tokens=None), gpu, num_gpus)
    except PlanError:
        return
    if left.fits and in_bytes:
        ranks = (left.request.tensor_parallel_size or 1) * left.request.pipeline_parallel_size
        num_bytes = left.max_kv_tokens * left.kv_bytes_per_token // ranks
        yield Remedy(f"kv_cache_memory_bytes={num_bytes} at most", {"kv_cache_memory_bytes": num_bytes})
    elif left.fits:
        yield Remedy(f"a KV cache of {left.max_kv_tokens} tokens at most", {"kv_cache_tokens": left.max_kv_tokens})


def _in_8_bits(plan: Plan, model: Model, gpu: Gpu) -> list[dict[str, Any]]:
    """The changes of type that are left to make. A KV cache of 8 bits wants hardware that computes in them."""
    changes: list[dict[str, Any]] = []
    if plan.request.quantization is None and model.checkpoint_method is None and FLOAT_BYTES[plan.request.dtype] == 2:
        changes.append({"quantization": "int8"})
    if plan.request.kv_cache_dtype == "auto" and "float8" in gpu.flops_per_s:
        changes.append({"kv_cache_dtype": "fp8"})
    return changes


def _fits(planning: Planning, model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> bool:
    try:
        return planning(model, request, gpu, num_gpus).fits
    except PlanError:
        return False


def _more_gpus(request: PlanRequest, model: Model, gpu: Gpu, num_gpus: int, planning: Planning) -> Plan | None:
    """The smallest plan with more tensor parallel ranks; those of a CPU share its memory."""
    if gpu.device == "cpu":
        return None
    try:
        plan = planning(model, replace(request, tensor_parallel_size=None), gpu, max(num_gpus, _MOST_GPUS))
    except PlanError:
        return None
    return plan if plan.fits else None
