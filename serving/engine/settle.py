"""Settles over how many devices a model runs: what the user set + the model + the devices -> vLLM's arguments with every size a number.

Rules: sizes that need more GPUs than are visible are refused; `auto` becomes the fewest that hold the model; what does not divide is
padded (`padding.py`), with a line in the log. What the model or the settings forbid is `parallel.py`'s.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.engine.kv_cache_size import Wish
from serving.engine.padding import CONFIG_KEY, overrides, padding_of
from serving.engine.parallel import AUTO, SIZES, check_parallel_sizes, is_divided, is_spread, shape_of, size_of, why_not_padded
from serving.engine_arguments import engine_arguments
from serving.errors import SettingsError
from serving.planner.memory import GIB, Load, Weights, read_weights, smallest_fit, weights_of_shape
from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Precision, Sharding, plan

logger = logging.getLogger("tokenport.engine")

_NO_WISH = Wish()
_SHORTEST_CONTEXT = 2048
"""Tokens to have room for where vLLM is to choose `max_model_len` by the memory there is: less is hardly worth serving."""
_LARGE_GPU_BYTES = 70 * GIB
"""From this size on vLLM runs larger batches (`get_batch_defaults` in vllm/engine/arg_utils.py)."""


def visible_gpu_bytes() -> list[int]:
    """The memory of each GPU that this process may use. vLLM asks the driver for it, and leaves CUDA uninitialised in this process."""
    from vllm.platforms import current_platform

    return [current_platform.get_device_total_memory(number) for number in range(current_platform.device_count())]


def settle(
    engine: Mapping[str, Any],
    model: str,
    *,
    on_cpu: bool,
    wish: Wish = _NO_WISH,
    visible: Callable[[], Sequence[int]] = visible_gpu_bytes,
) -> dict[str, Any]:
    """`engine`, vLLM's arguments that the user set, with the number of ranks settled, and with what padding needs.

    `model` is a local folder or a hub id, `wish` what the KV cache is to hold beyond one sequence; `visible` tells the bytes of each GPU
    that may be used.

    Raises:
        SettingsError: the sizes ask for more GPUs than there are, or `auto` cannot be decided.
        NoFit: the model is too large for the GPUs.
    """
    settled = dict(engine)
    if on_cpu and engine.get("tensor_parallel_size") == AUTO:
        settled["tensor_parallel_size"] = 1
    if all(settled.get(name, 1) == 1 for name in SIZES) and not (settled.get("enable_expert_parallel") or is_spread(settled)):
        return settled
    config = _config_of(model, engine)
    check_parallel_sizes(config, settled, on_cpu=on_cpu)
    devices = [] if on_cpu or is_spread(settled) else visible()
    if settled.get("tensor_parallel_size") == AUTO:
        settled["tensor_parallel_size"] = _smallest_size(config, settled, Path(model), devices, wish)
    elif devices:
        _check_devices(settled, len(devices))
    size = size_of(settled, "tensor_parallel_size")
    if is_divided(config, settled, size) or why_not_padded(config, settled) is not None:
        return settled
    return settled | _padding_arguments(config, settled, size)


def _plan(shape: ModelShape, size: int) -> Sharding:
    """Weighed for a sequence at full context, whatever is served: the same model over the same number of ranks is always padded alike."""
    return plan(shape, size, num_tokens=shape.max_context)


def _padding_arguments(config: Mapping[str, Any], engine: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The arguments that differ because of padding."""
    shape = shape_of(config, engine)
    assert shape is not None  # noqa: S101 - else it could not be padded
    sharding = _plan(shape, size)
    _tell(sharding, _precision(config, engine))
    # A repository of Mistral's may have the weights twice, under two sets of names; padded are those that go with config.json.
    formats = {name: "hf" for name in ("config_format", "load_format") if engine.get(name, "auto") == "auto"}
    return (formats if shape.model_type == "mistral" else {}) | {
        "hf_overrides": {**engine.get("hf_overrides", {}), **overrides(sharding)},
        "additional_config": {**engine.get("additional_config", {}), CONFIG_KEY: padding_of(sharding).to_json()},
    }


def _check_devices(engine: Mapping[str, Any], num_visible: int) -> None:
    needed = math.prod(size_of(engine, name) for name in SIZES[:3]) * _replicas_here(engine)
    if needed > num_visible:
        told = " x ".join(f"{name}={engine[name]}" for name in SIZES if name in engine)
        raise SettingsError(f"not enough GPUs: {told} needs {needed}, {num_visible} visible; set smaller sizes or give the container more")


def _smallest_size(config: Mapping[str, Any], engine: Mapping[str, Any], folder: Path, devices: Sequence[int], wish: Wish) -> int:
    """The fewest of `devices` that hold the model."""
    shape = shape_of(config, engine)
    if is_spread(engine):
        raise SettingsError("tensor_parallel_size=auto: the GPUs of other machines cannot be seen from here; write the number")
    if shape is None:
        raise SettingsError("tensor_parallel_size=auto: config.json does not say all sizes of the model; write the number")
    weights = read_weights(folder, has_tied_embeddings=shape.has_tied_embeddings) or _guessed_weights(config, shape)
    load = _load(config, engine, shape, min(devices, default=0), wish)
    can_pad = why_not_padded(config, engine) is None
    most = len(devices) // load.num_stages // _replicas_here(engine)
    sizes = [size for size in range(1, most + 1) if can_pad or is_divided(config, engine, size)]
    share = float(engine.get("gpu_memory_utilization", engine_arguments()["gpu_memory_utilization"].default))
    shardings = [_plan(shape, size) for size in sizes]
    chosen = smallest_fit(shardings, weights, load, [share * device for device in devices]).num_ranks
    logger.info("tensor_parallel_size=auto: %d of %d visible GPUs hold the model", chosen, len(devices))
    return chosen


def _guessed_weights(config: Mapping[str, Any], shape: ModelShape) -> Weights:
    if shape.num_experts or config.get("quantization_config"):
        raise SettingsError("tensor_parallel_size=auto: how large this model is shows when it has been downloaded; write the number")
    return weights_of_shape(shape)


def _load(config: Mapping[str, Any], engine: Mapping[str, Any], shape: ModelShape, gpu_bytes: int, wish: Wish) -> Load:
    length = engine.get("max_model_len") or shape.max_context
    context = length if length > 0 else _SHORTEST_CONTEXT
    is_large = gpu_bytes >= _LARGE_GPU_BYTES
    return Load(
        num_tokens=wish.tokens or context * (wish.sequences or 1),
        kv_cache_bytes=engine.get("kv_cache_memory_bytes"),
        num_batched_tokens=int(engine.get("max_num_batched_tokens") or (8192 if is_large else 2048)),
        num_sequences=int(engine.get("max_num_seqs") or (1024 if is_large else 256)),
        precision=_precision(config, engine),
        float_bytes=_float_bytes(engine),
        num_stages=size_of(engine, "pipeline_parallel_size"),
    )


def _precision(config: Mapping[str, Any], engine: Mapping[str, Any]) -> Precision:
    is_quantized = engine.get("quantization") is not None or bool(config.get("quantization_config"))
    is_small_cache = engine.get("kv_cache_dtype", "auto") not in ("auto", "bfloat16", "float16")
    float_bytes = _float_bytes(engine)
    return Precision(weight_bytes=1 if is_quantized else float_bytes, kv_bytes=1 if is_small_cache else float_bytes)


def _float_bytes(engine: Mapping[str, Any]) -> int:
    return 4 if engine.get("dtype") in ("float32", "float") else 2


def _tell(sharding: Sharding, precision: Precision) -> None:
    shape = sharding.shape
    changes = [
        f"{has} {what} run as {runs}"
        for what, has, runs in (
            ("query heads", shape.num_heads, sharding.num_heads),
            ("KV heads", shape.num_kv_heads, sharding.num_kv_slots),
            ("MLP columns", shape.intermediate_size, sharding.intermediate_size),
        )
        if has != runs
    ]
    weights, kv = sharding.added_bytes(precision)
    cost = f"{weights / 2**20:.1f} MiB of weights and {kv:.0f} bytes of KV cache a token more, on all devices together"
    logger.info("padded for tensor_parallel_size=%d: %s; this costs %s", sharding.num_ranks, ", ".join(changes), cost)


def _replicas_here(engine: Mapping[str, Any]) -> int:
    if engine.get("data_parallel_size_local") is not None:
        return int(engine["data_parallel_size_local"])
    is_one = engine.get("data_parallel_rank") is not None or engine.get("data_parallel_external_lb")
    return 1 if is_one else size_of(engine, "data_parallel_size")


def _config_of(model: str, engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json, of a folder or from the hub, where vLLM is about to fetch it anyway; empty if there is none."""
    file = Path(model) / "config.json"
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    from vllm.transformers_utils.repo_utils import get_hf_file_to_dict

    return get_hf_file_to_dict("config.json", model, engine.get("revision")) or {}
