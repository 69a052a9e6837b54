"""Whether a model fits on a number of GPUs, and what would make it: the parts of a plan put together.

Steps: what was asked is checked and completed with vLLM's defaults; the fewest ranks that hold the model are found, surely if there are as
many, or those asked for are taken; if it does not fit, each remedy is planned before it is named.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.memory.context_limit import longest_context
from serving.planner.memory.division import divisions_of, sharding_for
from serving.planner.memory.kv_cache import KvCache, kv_cache_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.overheads import Overheads, overheads
from serving.planner.memory.plan_checks import check_request, check_start
from serving.planner.memory.remedies import remedies_of
from serving.planner.memory.settled import Settled, settle
from serving.planner.memory.weight_format import online_format
from serving.planner.memory.weights import weights_bytes
from serving.planner.model import Model
from serving.planner.plan import AS_IT_IS, PerGpu, Plan, PlanRequest

_GIB = 2**30
_USUAL_GPUS = 8
"""Of one machine: over how many at least it is said how the model can be divided."""


def make_plan(model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> Plan:
    """`num_gpus` there are; the plan takes as many as it needs where `tensor_parallel_size` is None, and says so if they are too few.

    Raises:
        PlanError: a value is impossible, or vLLM would refuse it.
    """
    if request.quantization == AS_IT_IS:
        request = replace(request, quantization=None)
    plan = best_plan(model, request, gpu, num_gpus)
    sizes = range(1, max(num_gpus, _USUAL_GPUS) + 1)
    plan = replace(plan, divisions=divisions_of(model, sizes, plan.request))
    if plan.fits:
        return plan
    return replace(plan, remedies=tuple(remedies_of(plan, request, model, gpu, num_gpus, best_plan)))


def best_plan(model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> Plan:
    """As `make_plan`, without remedies."""
    check_request(model, request, num_gpus)
    settled = settle(model, request, gpu)
    nearest: Plan | None = None
    for layout in _layouts(model, settled.request, num_gpus):
        plan = _plan(model, settled, layout, gpu)
        if plan.fits and plan.is_sure:
            return plan
        if nearest is None or plan.shortfall_bytes < nearest.shortfall_bytes:
            nearest = plan
    if nearest is None:
        raise PlanError(f"no tensor_parallel_size up to {num_gpus // _num_groups(request)} can divide this model")
    return nearest


def _layouts(model: Model, request: PlanRequest, num_gpus: int) -> Iterator[Layout]:
    """Those to try, of the fewest ranks first: where no size is asked for, all that can divide the model."""
    if request.tensor_parallel_size is not None:
        yield _layout(model, request, request.tensor_parallel_size)
        return
    for size in range(1, num_gpus // _num_groups(request) + 1):
        try:
            yield _layout(model, request, size)
        except PlanError:
            continue


def _num_groups(request: PlanRequest) -> int:
    """Of tensor parallel ranks: the stages of all replicas."""
    return request.pipeline_parallel_size * request.data_parallel_size


def _layout(model: Model, request: PlanRequest, size: int) -> Layout:
    sharding = sharding_for(model, size, request)
    return Layout(sharding, request.pipeline_parallel_size, request.data_parallel_size, request.enable_expert_parallel)


@dataclass(frozen=True)
class _Parts:
    """What a GPU holds beside the KV cache; `share` is what the engine may take of it: gpu_memory_utilization of what there is. What is
    there before the engine starts does not count against its share, and has its place in the `rest`."""

    weights: Interval
    overheads: Overheads
    share: Interval
    rest: Interval

    @property
    def held(self) -> Interval:
        """Of the share."""
        return self.weights + self.overheads.activation_peak_bytes + self.overheads.cuda_graph_bytes + self.overheads.grown_bytes


def _plan(model: Model, settled: Settled, layout: Layout, gpu: Gpu) -> Plan:
    request = replace(settled.request, tensor_parallel_size=layout.sharding.num_ranks)
    parts = _parts(model, settled, layout, gpu)
    cache = kv_cache_of(model, layout, request.kv_cache_dtype, settled.steps.float_bytes, settled.steps.num_batched_tokens, gpu.device)
    asked = exactly(_asked_bytes(settled, cache))
    needed = parts.held + asked
    fits = needed.estimate <= parts.share.estimate
    is_given = request.kv_cache_memory_bytes is not None or request.kv_cache_tokens is not None
    cache_bytes = asked.estimate if is_given else parts.share.estimate - parts.held.estimate
    num_blocks = max(0, int(cache_bytes // cache.block_bytes))
    of_sequence = cache.blocks(settled.context)
    at_once = min(max(0, num_blocks - 1) // of_sequence, settled.steps.num_seqs)
    return Plan(
        fits=fits,
        is_sure=needed.high <= parts.share.low and parts.overheads.start_bytes.high <= parts.rest.low
        if fits
        else needed.low > parts.share.high,
        request=request,
        num_gpus=layout.num_ranks * layout.num_replicas,
        per_gpu=_per_gpu(parts, asked, gpu),
        kv_bytes_per_token=cache.bytes_per_token(settled.context),
        max_kv_tokens=num_blocks * settled.context // of_sequence,
        max_context=cache.longest_context(num_blocks, settled.num_sequences, longest_context(model.decoder)),
        max_concurrency=at_once * layout.num_replicas,
        shortfall_bytes=max(0.0, needed.estimate - parts.share.estimate),
        remedies=(),
        assumed=(*settled.assumed, *parts.overheads.assumed, *_doubts(settled, cache, parts, gpu)),
    )


def _parts(model: Model, settled: Settled, layout: Layout, gpu: Gpu) -> _Parts:
    request = settled.request
    over = overheads(model, layout, settled.steps, has_graphs=not request.enforce_eager, device=gpu.device)
    check_start(request.gpu_memory_utilization, over.start_bytes, gpu.usable_bytes)
    weight_format = None if request.quantization is None else online_format(request.quantization, gpu.device)
    return _Parts(
        weights=weights_bytes(model, layout, weight_format, settled.steps.float_bytes),
        overheads=over,
        share=gpu.usable_bytes.times(request.gpu_memory_utilization),
        rest=gpu.usable_bytes.times(1 - request.gpu_memory_utilization),
    )


def _per_gpu(parts: _Parts, kv_cache: Interval, gpu: Gpu) -> PerGpu:
    start = parts.overheads.start_bytes
    return PerGpu(
        weights_bytes=parts.weights,
        kv_cache_bytes=kv_cache,
        activation_peak_bytes=parts.overheads.activation_peak_bytes,
        cuda_graph_bytes=parts.overheads.cuda_graph_bytes,
        non_torch_bytes=start + parts.overheads.grown_bytes,
        total_bytes=parts.held + kv_cache + start,
        usable_bytes=gpu.usable_bytes,
        budget_bytes=_at_most(gpu.usable_bytes, parts.share + start),
    )


def _at_most(most: Interval, interval: Interval) -> Interval:
    return Interval(min(interval.estimate, most.estimate), min(interval.low, most.low), min(interval.high, most.high))


def _asked_bytes(settled: Settled, cache: KvCache) -> float:
    """Of KV cache on a GPU, with the block that vLLM keeps back."""
    request, of_sequence = settled.request, cache.blocks(settled.context)
    if request.kv_cache_memory_bytes is not None:
        return request.kv_cache_memory_bytes
    if request.kv_cache_tokens is not None:
        return (-(-request.kv_cache_tokens * of_sequence // settled.context) + 1) * cache.block_bytes
    return (settled.num_sequences * of_sequence + 1) * cache.block_bytes


def _doubts(settled: Settled, cache: KvCache, parts: _Parts, gpu: Gpu) -> list[str]:
    doubts = []
    start, rest = parts.overheads.start_bytes.estimate, parts.rest.estimate
    if start > rest:
        doubts.append(
            f"what is outside torch: {start / _GIB:.1f} GiB before vLLM looks, by the estimate, and gpu_memory_utilization="
            f"{settled.request.gpu_memory_utilization:g} leaves {rest / _GIB:.1f}: vLLM would not start; set less"
        )
    if not cache.sees_everything:
        doubts.append(f"kv_bytes_per_token: of a sequence of {settled.context} tokens, since layers with a sliding window keep fewer")
    if settled.request.enforce_eager and gpu.device == "cuda":
        doubts.append("activations: as measured with compiled layers; enforce_eager may take more")
    return doubts
