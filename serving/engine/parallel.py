"""What keeps a model from being split as asked: refusals that need only the settings and config.json, before anything is imported.

A model is split if its heads and its MLP divide by the ranks, or if they can be padded with zeros (`padding.py`): then also if it is of an
architecture that is known here, is loaded in the usual way, and is not packed.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

from serving.errors import SettingsError
from serving.planner.memory.division import PADDED_ARCHITECTURES, why_model_not_padded
from serving.planner.model_shape import ModelShape, num_experts, read_shape, text_config
from serving.planner.sharding import divides

AUTO = "auto"
SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
_SPLIT_LIKE_LLAMA = PADDED_ARCHITECTURES.keys() | {"gemma", "gemma2", "granite", "olmo", "olmo2", "starcoder2"}
"""Model types whose KV heads and MLP vLLM divides as `LlamaForCausalLM` does."""
_PADDING_LOADERS = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "npcache", "pt", "dummy")
"""Load formats whose weights pass through vLLM's `DefaultModelLoader`, or that load none."""


def check_parallel_sizes(config: Mapping[str, Any], engine: Mapping[str, Any], *, on_cpu: bool) -> None:
    """Raise SettingsError for sizes that the model or the device cannot have. What is only known with the devices, `settle` checks."""
    for name in SIZES:
        if engine.get(name, 1) != AUTO and int(engine.get(name, 1)) < 1:
            raise SettingsError(f"{name}={engine[name]}: 1 or more")
    stages, layers = size_of(engine, "pipeline_parallel_size"), text_config(config).get("num_hidden_layers")
    if stages > 1 and on_cpu:
        raise SettingsError(f"pipeline_parallel_size={stages}: vLLM's CPU backend has no pipeline stages; use tensor_parallel_size")
    if isinstance(layers, int) and stages > layers:
        raise SettingsError(f"pipeline_parallel_size={stages} is more than the model's {layers} layers; set at most that")
    _check_ray(engine, on_cpu=on_cpu)
    if engine.get("enable_expert_parallel") and num_experts(config) == 0:
        raise SettingsError("enable_expert_parallel is for mixtures of experts, and this model has none (config.json); unset it")
    if engine.get("tensor_parallel_size", 1) != AUTO:
        _check_division(config, engine, size_of(engine, "tensor_parallel_size"))


def _check_ray(engine: Mapping[str, Any], *, on_cpu: bool) -> None:
    for name in ("distributed_executor_backend", "data_parallel_backend"):
        if engine.get(name) == "ray" and on_cpu:
            raise SettingsError(f"{name}=ray: vLLM's CPU backend does not run on Ray; unset it")
        if engine.get(name) == "ray" and importlib.util.find_spec("ray") is None:
            raise SettingsError(f"{name}=ray: Ray is not installed; pip install 'tokenport[ray]', on every machine")


def _check_division(config: Mapping[str, Any], engine: Mapping[str, Any], size: int) -> None:
    """The refusal, with the sizes that would do."""
    heads = text_config(overridden(config, engine)).get("num_attention_heads")
    if not isinstance(heads, int) or heads < 1 or is_divided(config, engine, size):
        return
    why = why_not_padded(config, engine)
    if why is None:
        return
    shape = _split_shape(config, engine)
    has = f"{heads} attention heads"
    if shape is not None:
        has = f"{shape.num_heads} attention heads, {shape.num_kv_heads} KV heads and an MLP of {shape.intermediate_size}"
    sizes = ", ".join(str(number) for number in range(1, heads + 1) if is_divided(config, engine, number))
    raise SettingsError(
        f"tensor_parallel_size={size} cannot divide the model: it has {has}; sizes that can: {sizes}; zeros cannot fill it up: {why}"
    )


def why_not_padded(config: Mapping[str, Any], engine: Mapping[str, Any]) -> str | None:
    """Why zeros cannot fill up this model's heads or MLP under these settings; None if they can. The end of a sentence."""
    config = overridden(config, engine)
    why = why_model_not_padded(config, engine.get("quantization"))
    if why is None and shape_of(config, engine) is None:
        why = "config.json does not say all sizes"
    return why or _why_not_loaded(engine)


def _why_not_loaded(engine: Mapping[str, Any]) -> str | None:
    if engine.get("load_format", "auto") not in _PADDING_LOADERS:
        return f"load_format={engine['load_format']} loads weights in a way of its own"
    if engine.get("config_format", "auto") not in ("auto", "hf"):
        return f"config_format={engine['config_format']} names the weights in a way of its own"
    if engine.get("model_impl", "auto") not in ("auto", "vllm"):
        return f"model_impl={engine['model_impl']} splits the model in a way of its own"
    if engine.get("enable_lora"):
        return "a LoRA adapter is made for the heads that the model has; unset enable_lora"
    if "model" in (engine.get("speculative_config") or {}):
        return "speculative_config names a second model; unset it"
    if not isinstance(engine.get("hf_overrides", {}), Mapping):
        return "hf_overrides is not a JSON object"
    return None


def size_of(engine: Mapping[str, Any], name: str) -> int:
    """One of SIZES; `auto`, which is not settled yet, counts as 1."""
    value = engine.get(name, 1)
    return 1 if value == AUTO else int(value)


def replicas_here(engine: Mapping[str, Any]) -> int:
    """Data parallel replicas whose ranks are on this machine."""
    if engine.get("data_parallel_size_local") is not None:
        return int(engine["data_parallel_size_local"])
    is_one = engine.get("data_parallel_rank") is not None or engine.get("data_parallel_external_lb")
    return 1 if is_one else size_of(engine, "data_parallel_size")


def is_spread(engine: Mapping[str, Any]) -> bool:
    """Whether ranks may be on other machines, whose GPUs cannot be counted here."""
    backends = (engine.get("distributed_executor_backend"), engine.get("data_parallel_backend"))
    return int(engine.get("nnodes", 1)) > 1 or "ray" in backends


def is_divided(config: Mapping[str, Any], engine: Mapping[str, Any], size: int) -> bool:
    """Whether vLLM can split the model as it is, as far as can be told."""
    if size == 1 or not isinstance(engine.get("hf_overrides", {}), Mapping):
        return True
    shape = _split_shape(config, engine)
    if shape is not None:
        return divides(shape, size)
    heads = text_config(overridden(config, engine)).get("num_attention_heads")
    return not isinstance(heads, int) or heads % size == 0


def _split_shape(config: Mapping[str, Any], engine: Mapping[str, Any]) -> ModelShape | None:
    """The shape, of models whose KV heads and MLP are known to be divided as those of Llama are."""
    shape = shape_of(config, engine)
    return shape if shape is not None and shape.model_type in _SPLIT_LIKE_LLAMA else None


def shape_of(config: Mapping[str, Any], engine: Mapping[str, Any]) -> ModelShape | None:
    """The model's shape with what `hf_overrides` changes; None if it cannot be told."""
    return read_shape(overridden(config, engine))


def overridden(config: Mapping[str, Any], engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with what the user overrides, as vLLM merges them."""
    changes = engine.get("hf_overrides", {})
    if not isinstance(changes, Mapping):
        return config
    merged = {name: {**(config.get(name) or {}), **value} if isinstance(value, Mapping) else value for name, value in changes.items()}
    return {**config, **merged}
