"""Counts a checkpoint's bytes as they are loaded, and reports the fraction. Runs in the engine's processes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vllm.config import get_current_vllm_config

from serving.engine.progress import send_progress

PHASE = "loading weights"
_STEP = 0.01


def counted_weights(weights: Iterable[tuple[str, Any]], model: str) -> Iterator[tuple[str, Any]]:
    """Pass `weights` through. The fraction is of the safetensors files' size; a model that is no local folder has none."""
    config = get_current_vllm_config().additional_config
    total_bytes = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    loaded_bytes, told = 0, 0.0
    send_progress(config, PHASE, 0.0 if total_bytes else None)
    for name, tensor in weights:
        yield name, tensor
        loaded_bytes += tensor.nbytes
        if total_bytes and loaded_bytes / total_bytes >= told + _STEP:
            told = min(1.0, loaded_bytes / total_bytes)
            send_progress(config, PHASE, told)
    send_progress(config, "warming up")
