"""Over how many ranks a model can be split: by vLLM's rules as it is, else with zeros where Tokenport knows the model well enough."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from serving.errors import PlanError
from serving.planner.memory.kv_cache import kv_cache_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.weight_format import checkpoint_config, weights_of_groups
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.model_shape import ModelShape
from serving.planner.plan import Division, PlanRequest
from serving.planner.sharding import Precision, Sharding, are_valid_slots, plan, unsplit

PADDED_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""Model types whose attention and MLP can be filled up with zeros (serving/engine/padding.py), each with the one architecture of vLLM's
that is built of them."""
_PADDED_QUANTIZATIONS = (None, "int8", "fp8", "compressed-tensors")


def sharding_of(
    model: Model, num_ranks: int, *, quantization: str | None, num_replicas: int = 1, has_expert_parallel: bool = False
) -> Sharding:
    """The split over `num_ranks`. A mixture's experts are cut into slices for the ranks of all replicas, or whole with
    `has_expert_parallel`.

    Raises:
        PlanError: the model cannot be split so; says which numbers of ranks can.
    """
    shape, slices_per_rank = model.shape, 0 if has_expert_parallel else num_replicas
    if _divides(model, num_ranks, slices_per_rank):
        return replace(unsplit(shape), num_ranks=num_ranks)
    why = why_model_not_padded(model.config, quantization)
    if why is None:
        # Weighed for a sequence at full context, whatever is served: the same model is always padded alike.
        return plan(shape, num_ranks, num_tokens=shape.max_context)
    sizes = [number for number in range(1, shape.num_heads + 1) if _divides(model, number, slices_per_rank)]
    raise PlanError(
        f"tensor_parallel_size={num_ranks} cannot divide the model: it has {_sizes(model.decoder, shape)}; "
        f"sizes that can: {', '.join(map(str, sizes))}; zeros cannot fill it up: {why}"
    )


def sharding_for(model: Model, num_ranks: int, request: PlanRequest) -> Sharding:
    """As `sharding_of`, with what `request` asks."""
    return sharding_of(
        model,
        num_ranks,
        quantization=request.quantization,
        num_replicas=request.data_parallel_size,
        has_expert_parallel=request.enable_expert_parallel,
    )


def divisions_of(model: Model, sizes: Iterable[int], request: PlanRequest) -> tuple[Division, ...]:
    """Each of `sizes`, tensor parallel ones, with what it costs for `request`, in which everything is settled."""
    float_bytes, is_small = FLOAT_BYTES[request.dtype], request.quantization is not None or model.checkpoint_method is not None
    precision = Precision(weight_bytes=1 if is_small else float_bytes)
    found, kv_bytes = [], _kv_bytes_per_token(model, unsplit(model.shape), request)
    for size in sizes:
        try:
            sharding = sharding_for(model, size, request)
        except PlanError as error:
            found.append(Division(size, refused=str(error)))
        else:
            added_kv_bytes = _kv_bytes_per_token(model, sharding, request) - kv_bytes
            found.append(Division(size, sharding.is_padded, sharding.added_bytes(precision)[0], added_kv_bytes))
    return tuple(found)


def _kv_bytes_per_token(model: Model, sharding: Sharding, request: PlanRequest) -> int:
    """On all ranks: latent attention's is on each of them whole."""
    num_batched_tokens = request.max_num_batched_tokens or 1
    cache = kv_cache_of(model, Layout(sharding), request.kv_cache_dtype, FLOAT_BYTES[request.dtype], num_batched_tokens)
    return cache.bytes_per_token(request.context or 1)


def why_model_not_padded(config: Mapping[str, Any], quantization: str | None) -> str | None:
    """Why zeros cannot fill up the heads or the MLP of the model; None if they can. The end of a sentence."""
    if config.get("architectures") != [PADDED_ARCHITECTURES.get(str(config.get("model_type")))]:
        return f"that is known of {', '.join(PADDED_ARCHITECTURES.values())} only"
    activation = config.get("hidden_act", "silu")  # what transformers takes for all of these
    if activation != "silu":
        return f"its MLP has the activation {activation}, not silu"
    for name in ("dual_chunk_attention_config", "qk_norm"):
        if config.get(name):
            return f"it has {name}"
    if quantization not in _PADDED_QUANTIZATIONS:
        return f"quantization={quantization} packs the weights"
    return _why_not_quantized(checkpoint_config(config))


def _why_not_quantized(told: Mapping[str, Any] | None) -> str | None:
    """Numbers of 8 bits with a scale for each row, or for all, are padded like any others; packed ones and blocks of them are not."""
    if not told:
        return None
    groups = weights_of_groups(told)
    is_plain = groups and all(group.get("num_bits") == 8 and group.get("strategy") in ("channel", "tensor") for group in groups)
    if told.get("quant_method") != "compressed-tensors" or not is_plain or told.get("format") == "pack-quantized":
        return f"the checkpoint is quantized with {told.get('quant_method')}, which is not 8 bits with a scale for each row"
    return None


def _divides(model: Model, num_ranks: int, slices_per_rank: int) -> bool:
    """`slices_per_rank`: of an expert, over all replicas; 0 where experts are whole."""
    shape, decoder = model.shape, model.decoder
    has_latent_attention = bool(decoder.get("kv_lora_rank"))
    if shape.num_heads % num_ranks or not (has_latent_attention or are_valid_slots(shape.num_kv_heads, num_ranks)):
        return False
    if shape.num_experts:
        return int(decoder.get("moe_intermediate_size") or shape.intermediate_size) % (num_ranks * slices_per_rank or 1) == 0
    return shape.intermediate_size % num_ranks == 0


def _sizes(decoder: Mapping[str, Any], shape: ModelShape) -> str:
    kv_heads = "" if decoder.get("kv_lora_rank") else f", {shape.num_kv_heads} KV heads"
    mlp = (
        f"experts of {decoder.get('moe_intermediate_size') or shape.intermediate_size}"
        if shape.num_experts
        else f"an MLP of {shape.intermediate_size}"
    )
    return f"{shape.num_heads} attention heads{kv_heads} and {mlp}"
