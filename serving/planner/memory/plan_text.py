"""A plan as people read it: a bar for each part of a GPU's memory, then what it holds, what would help, and what was assumed."""

from serving.planner.hardware import Gpu
from serving.planner.interval import Interval
from serving.planner.model import Model
from serving.planner.plan import PARTS, Division, Plan

_GIB = 2**30
_MIB = 2**20
_BAR = 40


def plan_text(plan: Plan, model: Model, gpu: Gpu) -> str:
    """Lines for a terminal, 100 columns at most but for what was assumed."""
    lines = [_verdict(plan, model, gpu), "", *_table(plan), "", *_capacity(plan), "", *_divisions(plan)]
    if not plan.fits:
        lines += ["", "what would make it fit, cheapest first:" if plan.remedies else "nothing that is known here would make it fit"]
        lines += [f"  {remedy.change}" for remedy in plan.remedies]
    lines += ["", "assumed:", *(f"  {line}" for line in plan.assumed)]
    return "\n".join(lines) + "\n"


def _verdict(plan: Plan, model: Model, gpu: Gpu) -> str:
    request = plan.request
    doubt = "" if plan.is_sure else ", by the estimates: it may not" if plan.fits else ", by the estimates: it may"
    sizes = {
        "tensor": request.tensor_parallel_size,
        "pipeline": request.pipeline_parallel_size,
        "data": request.data_parallel_size,
    }
    parallel = ", ".join(f"{name} parallel {size}" for name, size in sizes.items() if size != 1)
    what = f"{model.name} in {request.quantization or model.checkpoint_method or request.dtype}"
    where = f"{plan.num_gpus} x {gpu.name}{f' ({parallel})' if parallel else ''}"
    verdict = f"{'fits' if plan.fits else 'does not fit'} on {where} with {request.concurrency} x {request.context} tokens"
    return f"{what} {verdict}{doubt}"


def _table(plan: Plan) -> list[str]:
    gpu = plan.per_gpu
    longest = max(gpu.usable_bytes.estimate, gpu.total_bytes.estimate)
    rows = [(name, getattr(gpu, field)) for name, field in PARTS.items()]
    rows += [("together", gpu.total_bytes), ("may take", gpu.budget_bytes), ("has", gpu.usable_bytes)]
    width = max(len(_ends(part)) for _, part in rows)
    lines = [f"{'GiB of each GPU':<15}  {'estimate':>9}  {'low to high':>{width}}"]
    for name, part in rows:
        bar = "█" * round(_BAR * part.estimate / longest)
        lines.append(f"{name:<15}  {part.estimate / _GIB:9.2f}  {_ends(part):>{width}}  {bar}".rstrip())
    return lines


def _ends(part: Interval) -> str:
    return f"{part.low / _GIB:.2f} to {part.high / _GIB:.2f}"


def _capacity(plan: Plan) -> list[str]:
    request = plan.request
    lines = [
        f"{plan.max_kv_tokens} tokens in the KV cache of a replica, {plan.kv_bytes_per_token} bytes each",
        f"{plan.max_context} tokens of context at most, for {request.concurrency} at once",
        f"{plan.max_concurrency} at once at most, of {request.context} tokens",
    ]
    if not plan.fits:
        lines.append(f"{plan.shortfall_bytes / _GIB:.2f} GiB are lacking on each GPU")
    return lines


def _divisions(plan: Plan) -> list[str]:
    """Sizes that are told the same of stand on one line."""
    sizes: dict[str, list[str]] = {}
    for division in plan.divisions:
        sizes.setdefault(_told(division), []).append(str(division.tensor_parallel_size))
    width = max(len(", ".join(same)) for same in sizes.values())
    return ["tensor_parallel_size can be", *(f"  {', '.join(same):<{width}}  {told}" for told, same in sizes.items())]


def _told(division: Division) -> str:
    if division.refused is not None:
        return "not: " + division.refused.partition(": ")[2]
    costs = [f"{division.added_weights_bytes / _MIB:.1f} MiB of weights"] if division.added_weights_bytes else []
    costs += [f"{division.added_kv_bytes_per_token:.0f} bytes of KV cache a token"] if division.added_kv_bytes_per_token else []
    how = "filled up with zeros" if division.is_padded else "KV cache copied" if costs else "as it is"
    return f"{how}: {' and '.join(costs)} more, on all GPUs together" if costs else how
