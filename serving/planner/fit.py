"""Whether a model fits on a number of GPUs, and what would make it: the parts of a plan put together.

Steps: what was asked is checked and completed with vLLM's defaults; the fewest ranks that hold the model are found, or those asked for are
taken; if it does not fit, each remedy is planned before it is named. All raise PlanError for what cannot be or what vLLM would refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from serving.errors import NoFit, PlanError
from serving.planner.batch_defaults import batch_defaults
from serving.planner.context_limit import default_context, longest_context
from serving.planner.division import sharding_of
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.kv_cache import KvCache, kv_cache_of
from serving.planner.layout import Layout
from serving.planner.model import FLOAT_BYTES, Model, config_dtype
from serving.planner.overheads import Overheads, Steps, overheads
from serving.planner.plan import PerGpu, Plan, PlanRequest
from serving.planner.plan_checks import check_request
from serving.planner.plan_words import no_fit_line
from serving.planner.remedies import remedies_of
from serving.planner.weight_format import WeightFormat, online_format
from serving.planner.weights import weights_bytes


def make_plan(model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> Plan:
    """`num_gpus` there are; the plan takes as many as it needs where `tensor_parallel_size` is None, and says so if they are too few.

    Raises:
        PlanError: a value is impossible, or vLLM would refuse it.
    """
    plan = best_plan(model, request, gpu, num_gpus)
    if plan.fits:
        return plan
    return replace(plan, remedies=tuple(remedies_of(plan, request, model, gpu, num_gpus, best_plan)))


def require_fit(model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> Plan:
    """The plan, if it fits.

    Raises:
        NoFit: it does not; says the parts, what is lacking, and the remedies.
        PlanError: see `make_plan`.
    """
    plan = make_plan(model, request, gpu, num_gpus)
    if not plan.fits:
        raise NoFit(no_fit_line(plan))
    return plan


def best_plan(model: Model, request: PlanRequest, gpu: Gpu, num_gpus: int) -> Plan:
    """As `make_plan`, without remedies."""
    check_request(model, request, num_gpus)
    settled, assumed = _settled(model, request, gpu)
    nearest: Plan | None = None
    for size in _sizes(model, settled, num_gpus):
        plan = _plan(model, replace(settled, tensor_parallel_size=size), gpu, assumed)
        if plan.fits:
            return plan
        if nearest is None or plan.shortfall_bytes < nearest.shortfall_bytes:
            nearest = plan
    if nearest is None:
        raise PlanError(f"no tensor_parallel_size up to {num_gpus // _gpus_of_a_rank(request)} can divide this model")
    return nearest


def _settled(model: Model, request: PlanRequest, gpu: Gpu) -> tuple[PlanRequest, list[str]]:
    """`request` with vLLM's defaults, and a line for each that matters."""
    assumed = list(model.assumed)
    context = default_context(model.decoder) if request.context is None else request.context
    if request.context is None:
        assumed.append(f"context: {context}, the model's own")
    if request.dtype == "auto":
        request = replace(request, dtype=_auto_dtype(model))
    if request.quantization is not None and model.checkpoint_method is not None:
        if request.quantization != model.checkpoint_method:
            assumed.append(f"quantization={request.quantization}: without effect, the checkpoint is quantised by {model.checkpoint_method}")
        request = replace(request, quantization=None)
    sequences = -(-request.concurrency // request.data_parallel_size)
    tokens, most = batch_defaults(gpu, context, num_batched_tokens=request.max_num_batched_tokens, num_seqs=request.max_num_seqs)
    if request.max_num_seqs is None and sequences > most:
        most = sequences
        assumed.append(f"max_num_seqs: raised from vLLM's default to {sequences}, so that all run at once")
    if request.max_num_batched_tokens is None:
        assumed.append(f"max_num_batched_tokens: {tokens}, max_num_seqs: {most}; vLLM's defaults on {gpu.name}")
    return replace(request, context=context, max_num_batched_tokens=tokens, max_num_seqs=most), assumed


def _auto_dtype(model: Model) -> str:
    """vLLM computes a checkpoint in 32 bits in bfloat16."""
    dtype = config_dtype(model.config)
    return dtype if dtype in ("bfloat16", "float16") else "bfloat16"


def _sizes(model: Model, request: PlanRequest, num_gpus: int) -> Iterator[int]:
    """The tensor parallel sizes to try, smallest first: of those that are not asked for by name, the ones that can divide the model."""
    if request.tensor_parallel_size is not None:
        yield request.tensor_parallel_size
        return
    for size in range(1, num_gpus // _gpus_of_a_rank(request) + 1):
        try:
            _layout(model, request, size)
        except PlanError:
            continue
        yield size


def _gpus_of_a_rank(request: PlanRequest) -> int:
    return request.pipeline_parallel_size * request.data_parallel_size


def _layout(model: Model, request: PlanRequest, size: int) -> Layout:
    slices = 1 if request.enable_expert_parallel else size * request.data_parallel_size
    sharding = sharding_of(model, size, quantization=request.quantization, num_expert_slices=slices)
    return Layout(sharding, request.pipeline_parallel_size, request.data_parallel_size, request.enable_expert_parallel)


@dataclass(frozen=True)
class _Parts:
    """What a plan is put together of."""

    weights: Interval
    cache: KvCache
    overheads: Overheads
    budget: Interval

    @property
    def num_blocks(self) -> int:
        """Of the KV cache that the estimates leave room for."""
        others = self.weights + self.overheads.activation_peak_bytes + self.overheads.cuda_graph_bytes + self.overheads.non_torch_bytes
        return max(0, int((self.budget.estimate - others.estimate) // self.cache.block_bytes))


def _plan(model: Model, request: PlanRequest, gpu: Gpu, assumed: list[str]) -> Plan:
    parts = _parts(model, request, gpu)
    context = request.context or 1
    sequences = -(-request.concurrency // request.data_parallel_size)
    of_sequence = parts.cache.blocks(context)
    needed = exactly(_asked_bytes(request, parts.cache, sequences))
    over = parts.overheads
    total = parts.weights + needed + over.activation_peak_bytes + over.cuda_graph_bytes + over.non_torch_bytes
    fits = total.estimate <= parts.budget.estimate
    num_blocks = parts.num_blocks if request.kv_cache_memory_bytes is None else request.kv_cache_memory_bytes // parts.cache.block_bytes
    at_once = min(max(0, num_blocks - 1) // of_sequence, request.max_num_seqs or sequences)
    usable = gpu.usable_bytes
    return Plan(
        fits=fits,
        is_sure=total.high <= parts.budget.low if fits else total.low > parts.budget.high,
        request=request,
        num_gpus=_gpus_of_a_rank(request) * (request.tensor_parallel_size or 1),
        per_gpu=PerGpu(
            parts.weights, needed, over.activation_peak_bytes, over.cuda_graph_bytes, over.non_torch_bytes, total, usable, parts.budget
        ),
        kv_bytes_per_token=parts.cache.bytes_per_token(context),
        max_kv_tokens=num_blocks * context // of_sequence,
        max_context=parts.cache.longest_context(num_blocks, sequences, longest_context(model.decoder)),
        max_concurrency=at_once * request.data_parallel_size,
        shortfall_bytes=max(0.0, total.estimate - parts.budget.estimate),
        remedies=(),
        assumed=(*assumed, *over.assumed, *_doubts(request, parts)),
    )


def _parts(model: Model, request: PlanRequest, gpu: Gpu) -> _Parts:
    layout = _layout(model, request, request.tensor_parallel_size or 1)
    float_bytes = FLOAT_BYTES[request.dtype]
    steps = Steps(request.max_num_batched_tokens or 1, request.max_num_seqs or 1, float_bytes)
    over = overheads(model, layout, steps, has_graphs=not request.enforce_eager, device=gpu.device)
    usable, share = gpu.usable_bytes, request.gpu_memory_utilization
    if over.start_bytes.estimate > (1 - share) * usable.estimate:
        most = int(100 * (1 - over.start_bytes.estimate / usable.estimate)) / 100
        raise PlanError(
            f"gpu_memory_utilization={share:g}: vLLM does not start, since CUDA and NCCL take {over.start_bytes.estimate / 2**30:.1f} GiB "
            f"of the {usable.estimate / 2**30:.1f} before; {most:g} at most"
        )
    return _Parts(
        weights=weights_bytes(model, layout, _format(request, gpu), float_bytes),
        cache=kv_cache_of(model, layout, request.kv_cache_dtype, float_bytes, steps.num_batched_tokens, gpu.device),
        overheads=over,
        budget=usable.times(share) + over.start_bytes,
    )


def _format(request: PlanRequest, gpu: Gpu) -> WeightFormat | None:
    return None if request.quantization is None else online_format(request.quantization, gpu.device)


def _asked_bytes(request: PlanRequest, cache: KvCache, sequences: int) -> float:
    """Of KV cache on a GPU, with the block that vLLM keeps back."""
    if request.kv_cache_memory_bytes is not None:
        return request.kv_cache_memory_bytes
    context = request.context or 1
    blocks = cache.blocks(context)
    if request.kv_cache_tokens is not None:
        return (-(-request.kv_cache_tokens * blocks // context) + 1) * cache.block_bytes
    return (sequences * blocks + 1) * cache.block_bytes


def _doubts(request: PlanRequest, parts: _Parts) -> list[str]:
    doubts = []
    if not parts.cache.sees_everything:
        doubts.append(f"kv_bytes_per_token: of a sequence of {request.context} tokens, since layers with a sliding window keep fewer")
    if request.enforce_eager:
        doubts.append("activations: as measured with compiled layers; enforce_eager may take more")
    return doubts
