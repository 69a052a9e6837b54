"""Settles over how many devices a model runs: what the user set + the model + the devices -> vLLM's arguments with every size a number.

Rules: sizes that need more GPUs than are visible are refused; `auto` becomes the fewest that hold the model; what does not divide is
padded (`padding.py`), with a line in the log. What the model or the settings forbid is `parallel.py`'s.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.engine.devices import visible_gpus
from serving.engine.fitting import smallest_size
from serving.engine.kv_cache_size import Wish
from serving.engine.model_to_plan import config_of
from serving.engine.padding import CONFIG_KEY, overrides, padding_of
from serving.engine.parallel import (
    AUTO,
    SIZES,
    check_parallel_sizes,
    is_divided,
    is_spread,
    replicas_here,
    shape_of,
    size_of,
    why_not_padded,
)
from serving.errors import SettingsError
from serving.planner.hardware import Gpu
from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Precision, Sharding, plan

logger = logging.getLogger("tokenport.engine")

_NO_WISH = Wish()


def settle(
    engine: Mapping[str, Any],
    model: str,
    *,
    on_cpu: bool,
    wish: Wish = _NO_WISH,
    visible: Callable[[], Sequence[Gpu]] = visible_gpus,
) -> dict[str, Any]:
    """`engine`, vLLM's arguments that the user set, with the number of ranks settled, and with what padding needs.

    `model` is a local folder or a hub id, `wish` what the KV cache is to hold beyond one sequence; `visible` tells the GPUs that
    may be used.

    Raises:
        SettingsError: the sizes ask for more GPUs than there are, or `auto` cannot be decided.
        NoFit: the model is too large for the GPUs.
    """
    settled = dict(engine)
    if on_cpu and engine.get("tensor_parallel_size") == AUTO:
        settled["tensor_parallel_size"] = 1
    if all(settled.get(name, 1) == 1 for name in SIZES) and not (settled.get("enable_expert_parallel") or is_spread(settled)):
        return settled
    config = config_of(model, engine)
    check_parallel_sizes(config, settled, on_cpu=on_cpu)
    devices = [] if on_cpu or is_spread(settled) else visible()
    if settled.get("tensor_parallel_size") == AUTO:
        settled["tensor_parallel_size"] = _smallest_size(config, settled, model, devices, wish)
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
    needed = math.prod(size_of(engine, name) for name in SIZES[:3]) * replicas_here(engine)
    if needed > num_visible:
        told = " x ".join(f"{name}={engine[name]}" for name in SIZES if name in engine)
        raise SettingsError(f"not enough GPUs: {told} needs {needed}, {num_visible} visible; set smaller sizes or give the container more")


def _smallest_size(config: Mapping[str, Any], engine: Mapping[str, Any], model: str, devices: Sequence[Gpu], wish: Wish) -> int:
    """The fewest of `devices` that hold the model."""
    if is_spread(engine):
        raise SettingsError("tensor_parallel_size=auto: the GPUs of other machines cannot be seen from here; write the number")
    can_pad = why_not_padded(config, engine) is None
    most = len(devices) // size_of(engine, "pipeline_parallel_size") // replicas_here(engine)
    sizes = [size for size in range(1, most + 1) if can_pad or is_divided(config, engine, size)]
    chosen = smallest_size(model, engine, sizes, devices, wish)
    logger.info("tensor_parallel_size=auto: %d of %d visible GPUs hold the model", chosen, len(devices))
    return chosen


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
