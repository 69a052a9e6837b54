"""A request with every size settled: what was not told becomes vLLM's default, with a line for each that matters."""

from dataclasses import dataclass, replace

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.memory.batch_defaults import batch_defaults
from serving.planner.memory.context_limit import default_context
from serving.planner.memory.dtype import computed_dtype
from serving.planner.memory.overhead_forms import Steps
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.plan import PlanRequest


@dataclass(frozen=True)
class Settled:
    """`request` has all sizes but perhaps the tensor parallel one; `context` and `steps` are its own. `num_sequences` at once in a replica.
    `assumed`: a line for each value that nobody told."""

    request: PlanRequest
    context: int
    num_sequences: int
    steps: Steps
    assumed: tuple[str, ...]


def settle(model: Model, request: PlanRequest, gpu: Gpu) -> Settled:
    """`request` for `model` on that GPU.

    Raises:
        PlanError: vLLM would refuse the sizes of a step, or the type of numbers.
    """
    assumed = list(model.assumed)
    context = default_context(model.decoder) if request.context is None else request.context
    if request.context is None:
        assumed.append(f"context: {context}, the model's own")
    num_sequences = -(-request.concurrency // request.data_parallel_size)
    tokens, most = _step_sizes(request, gpu, context, num_sequences, assumed)
    dtype = computed_dtype(model, request, gpu)
    if request.dtype == "auto" and not gpu.has_bfloat16:
        assumed.append(f"dtype: {dtype}, since {gpu.name} has no bfloat16")
    quantization = _quantization(model, request.quantization, assumed)
    settled = replace(request, context=context, dtype=dtype, quantization=quantization, max_num_batched_tokens=tokens, max_num_seqs=most)
    return Settled(settled, context, num_sequences, Steps(tokens, most, FLOAT_BYTES[dtype]), tuple(assumed))


def _step_sizes(request: PlanRequest, gpu: Gpu, context: int, num_sequences: int, assumed: list[str]) -> tuple[int, int]:
    """Tokens and sequences of a step: vLLM's defaults, and no fewer than what is to run at once."""
    tokens, most = batch_defaults(gpu, context, num_batched_tokens=request.max_num_batched_tokens, num_seqs=request.max_num_seqs)
    if request.max_num_batched_tokens is None or request.max_num_seqs is None:
        assumed.append(f"max_num_batched_tokens: {tokens}, max_num_seqs: {most}; vLLM's defaults on {gpu.name}")
    if request.max_num_seqs is None and num_sequences > most:
        most = num_sequences
        assumed.append(f"max_num_seqs: raised to {most}, so that all run at once")
    if request.max_num_batched_tokens is None and most > tokens:
        tokens = most
        assumed.append(f"max_num_batched_tokens: raised to {tokens}, since a step has a token of each sequence")
    if tokens < most:
        raise PlanError(f"max_num_batched_tokens={tokens} is less than the {most} sequences of a step, which vLLM refuses; {most} or more")
    return tokens, most


def _quantization(model: Model, asked: str | None, assumed: list[str]) -> str | None:
    """What is done while loading: nothing to a checkpoint that is quantised already."""
    if asked is None or model.checkpoint_method is None:
        return asked
    if asked == "int8":
        assumed.append(f"quantization={asked}: without effect, the checkpoint is quantised by {model.checkpoint_method}")
    return None
