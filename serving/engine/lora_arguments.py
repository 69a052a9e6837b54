"""Pure: whether the settings ask for LoRA, and vLLM's arguments for it that follow from those that were set."""

from collections.abc import Mapping
from typing import Any

_MAX_SLOTS = 4
"""Adapters in one batch unless `max_loras` says otherwise, as in LMI. Each slot takes device memory for an adapter of the largest rank."""
_ASKING = ("max_loras", "max_cpu_loras", "lora_modules")


def wants_lora(user: Mapping[str, Any]) -> bool:
    """Whether `enable_lora` is set, or one of the settings that mean nothing without it."""
    return bool(user.get("enable_lora", any(user.get(name) for name in _ASKING)))


def lora_defaults(user: Mapping[str, Any]) -> dict[str, Any]:
    """Without `max_cpu_loras`, vLLM keeps as many adapters in memory as may be in one batch; with it, only one of them could be."""
    if not wants_lora(user):
        return {}
    chosen: dict[str, Any] = {"enable_lora": True}
    if user.get("max_cpu_loras") and "max_loras" not in user:
        chosen["max_loras"] = min(user["max_cpu_loras"], _MAX_SLOTS)
    return chosen
