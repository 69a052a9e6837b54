"""What cannot be planned because it cannot be, or because vLLM would refuse it: told before any arithmetic, one line each."""

import difflib

from serving.errors import PlanError
from serving.planner.interval import Interval
from serving.planner.memory.context_limit import longest_context
from serving.planner.memory.weight_format import online_format
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.plan import PlanRequest

_GIB = 2**30
_COUNTS = (
    "concurrency",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "max_num_batched_tokens",
    "max_num_seqs",
    "kv_cache_tokens",
    "kv_cache_memory_bytes",
)


def check_request(model: Model, request: PlanRequest, num_gpus: int) -> None:
    """Raise PlanError for a value that is impossible for this model on `num_gpus`."""
    for name in ("context", *_COUNTS):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise PlanError(f"{name}={value}: 1 or more")
    if num_gpus < 1:
        raise PlanError(f"gpus={num_gpus}: 1 or more")
    if not 0 < request.gpu_memory_utilization <= 1:
        raise PlanError(f"gpu_memory_utilization={request.gpu_memory_utilization:g}: more than 0, 1 at most")
    longest = longest_context(model.decoder)
    if request.context is not None and request.context > longest:
        raise PlanError(
            f"context={request.context} is more than the {longest} tokens that the model was made for (max_position_embeddings)"
        )
    _check_types(model, request)
    _check_sizes(model, request, num_gpus)
    sequences = -(-request.concurrency // request.data_parallel_size)
    if request.max_num_seqs is not None and request.max_num_seqs < sequences:
        raise PlanError(f"max_num_seqs={request.max_num_seqs} lets no {request.concurrency} sequences run at once; {sequences} or more")


def _check_types(model: Model, request: PlanRequest) -> None:
    if request.dtype != "auto" and request.dtype not in FLOAT_BYTES:
        near = difflib.get_close_matches(request.dtype.lower(), FLOAT_BYTES, n=1, cutoff=0)[0]
        raise PlanError(f"dtype={request.dtype!r} is not known (nearest: {near}); it can be auto, {', '.join(FLOAT_BYTES)}")
    if request.quantization is not None:
        _check_quantization(request.quantization, request.dtype, model.checkpoint_method)


def _check_quantization(quantization: str, dtype: str, method: str | None) -> None:
    if method is None:
        online_format(quantization)
        if quantization == "int8" and FLOAT_BYTES.get(dtype) == 4:
            raise PlanError(f"dtype={dtype} and quantization=int8: INT8 kernels answer in 16 bits; dtype can be auto")
    elif quantization not in ("int8", method, f"{method}_marlin"):
        raise PlanError(f"quantization={quantization}: the checkpoint is quantised by {method}, and vLLM refuses another; leave it out")


def _check_sizes(model: Model, request: PlanRequest, num_gpus: int) -> None:
    stages, shape = request.pipeline_parallel_size, model.shape
    if stages > shape.num_layers:
        raise PlanError(f"pipeline_parallel_size={stages} is more than the model's {shape.num_layers} layers; set at most that")
    if request.enable_expert_parallel and not shape.num_experts:
        raise PlanError("enable_expert_parallel is for mixtures of experts, and this model has none (config.json); leave it out")
    needed = (request.tensor_parallel_size or 1) * stages * request.data_parallel_size
    if needed > num_gpus:
        sizes = {
            "tensor_parallel_size": request.tensor_parallel_size or 1,
            "pipeline_parallel_size": stages,
            "data_parallel_size": request.data_parallel_size,
        }
        told = " x ".join(f"{name}={value}" for name, value in sizes.items() if value > 1)
        raise PlanError(f"{told} needs {needed} GPUs, there are {num_gpus}; set smaller sizes or take more")


def check_start(share: float, start: Interval, usable: Interval) -> None:
    """Raise PlanError where vLLM cannot start: `share`, its gpu_memory_utilization, is more than CUDA and NCCL surely leave free."""
    if start.low <= (1 - share) * usable.high:
        return
    most = int(100 * (1 - start.low / usable.high)) / 100
    raise PlanError(
        f"gpu_memory_utilization={share:g}: vLLM does not start, since CUDA and NCCL take {start.low / _GIB:.1f} GiB of the "
        f"{usable.high / _GIB:.1f} before; {most:g} at most"
    )
