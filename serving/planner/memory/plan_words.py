"""A plan that does not fit, in one line: what it needs, what there is, and what would close the gap."""

from serving.planner.hardware import Device
from serving.planner.plan import PARTS, Plan, PlanRequest

_GIB = 2**30


def no_fit_line(plan: Plan, device: Device = "cuda") -> str:
    """The parts, what is lacking, and the remedies, cheapest first."""
    gpu, request = plan.per_gpu, plan.request
    told = ", ".join(f"{getattr(gpu, field).estimate / _GIB:.1f} {name}" for name, field in PARTS.items())
    if device == "cpu":
        where, more = "this machine" if plan.num_gpus == 1 else f"each of {plan.num_gpus} ranks on this machine", ""
    else:
        where, more = "the GPU" if plan.num_gpus == 1 else f"each of {plan.num_gpus} GPUs", ", more GPUs of this kind"
    line = (
        f"the model does not fit: on {where} it needs {gpu.total_bytes.estimate / _GIB:.1f} GiB ({told}) for {_asked(request)}, "
        f"may take {gpu.budget_bytes.estimate / _GIB:.1f} GiB, lacks {plan.shortfall_bytes / _GIB:.1f}"
    )
    if not plan.remedies:
        return f"{line}; nothing of int8, an fp8 KV cache{more} or a shorter context would do"
    return f"{line}; what would do: {'; or '.join(remedy.change for remedy in plan.remedies)}"


def _asked(request: PlanRequest) -> str:
    if request.kv_cache_memory_bytes is not None:
        return f"kv_cache_memory_bytes={request.kv_cache_memory_bytes}"
    if request.kv_cache_tokens is not None:
        return f"a KV cache of {request.kv_cache_tokens} tokens"
    return f"{request.concurrency} sequence{'s' if request.concurrency > 1 else ''} of {request.context} tokens"
