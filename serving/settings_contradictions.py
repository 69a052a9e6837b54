"""What settings may not say together, or not from where they were said."""

from collections.abc import Mapping
from typing import Any

from serving.errors import SettingsError
from serving.settings_names import PROTECTED, SECURITY_CONTROLS
from serving.settings_sources import DEFAULT

_CACHE_SIZES = ("gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override")


def refuse_contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """`values` and `sources` of all of Tokenport's settings and of those of vLLM's that were set.

    Raises:
        SettingsError: naming what contradicts, and where each was said.
    """
    for variable, name in PROTECTED.items():
        if sources[name] not in (DEFAULT, variable):
            raise SettingsError(f"{sources[name]}: {name} is the platform's to say, in {variable}; remove it")
    if values["secure_mode"] and not values["security_controls"]:
        raise SettingsError(f"SAGEMAKER_SECURE_MODE is true and SAGEMAKER_SECURITY_CONTROLS names none of {', '.join(SECURITY_CONTROLS)}")
    if values["security_controls"] and sources["secure_mode"] == DEFAULT:
        raise SettingsError("SAGEMAKER_SECURITY_CONTROLS is set and SAGEMAKER_SECURE_MODE is not: set it to true, or to false to hold none")
    for name in ("enable_log_requests", "enable_log_outputs"):
        if values.get(name) and not values["log_requests"]:
            raise SettingsError(f"{sources[name]}: {name} puts requests into the log, which needs log_requests=true as well")
    for name in ("emf_interval_s", "emf_endpoint_name"):
        if values["emf_namespace"] is None and sources[name] != DEFAULT:
            raise SettingsError(f"{sources[name]}: {name} is of metrics that nobody asked for; set emf_namespace too")
    _refuse_two_cache_sizes(values, sources)
    for name in ("max_loras", "max_cpu_loras", "lora_modules"):
        if values.get("enable_lora") is False and name in values:
            raise SettingsError(f"{sources['enable_lora']} switches LoRA off, {sources[name]} asks for it ({name}); keep one")


def _refuse_two_cache_sizes(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    names = [name for name in ("kv_cache_tokens", "max_concurrency") if values[name] is not None]
    names += [name for name in _CACHE_SIZES if values.get(name) is not None] if names else []
    if len(names) > 1:
        told = " and ".join(f"{sources[name]} ({name})" for name in names)
        raise SettingsError(f"{told} each size the KV cache; keep one")
    if names and values.get("max_model_len") == -1:
        raise SettingsError(
            f"{sources['max_model_len']}: max_model_len=auto takes its length from the KV cache, whose size {names[0]} takes from "
            "max_model_len; write a number"
        )
