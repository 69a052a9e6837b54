"""Pure: what the user set + the model + the device -> vLLM's engine arguments. Numbered, later rules win:

1. vLLM's own defaults (left out here)  2. Tokenport's defaults for every device  3. for the CPU  4. what the user set
5. what must be so for Tokenport to work, which the user cannot set.
"""

import math
from collections.abc import Mapping
from typing import Any

from serving.engine.progress import CONFIG_KEY
from serving.errors import SettingsError

_IN_PROCESS_EXECUTOR = "serving.engine.cpu_executor.InProcessExecutor"


def num_ranks(user: Mapping[str, Any]) -> int:
    """Processes that the model is spread over. `auto` counts as one, which it is on the CPU; the number of GPUs is known only later."""
    tensor_ranks = user.get("tensor_parallel_size", 1)
    return (1 if tensor_ranks == "auto" else int(tensor_ranks)) * int(user.get("pipeline_parallel_size", 1))


def cpu_defaults(user: Mapping[str, Any], memory_fraction: float) -> dict[str, Any]:
    """Rule 3. Compiling costs minutes at start and gains a tenth here; FP16 has no fast kernels on most CPUs."""
    chosen: dict[str, Any] = {"dtype": "bfloat16", "enforce_eager": True}
    if "kv_cache_memory_bytes" not in user:
        chosen["gpu_memory_utilization"] = memory_fraction
    if num_ranks(user) == 1:
        chosen["distributed_executor_backend"] = _IN_PROCESS_EXECUTOR
    return chosen


def engine_arguments(
    user: Mapping[str, Any],
    *,
    model: str,
    served_name: str,
    device_defaults: Mapping[str, Any],
    progress_socket: str,
    log_requests: bool,
    drain_s: float,
    to_processes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All arguments by their vLLM names, ready for vLLM's own parser. `to_processes`: what of Tokenport's the engine's processes must know.

    Raises:
        SettingsError: `additional_config` is not an object.
    """
    additional = user.get("additional_config", {})
    if not isinstance(additional, Mapping):
        raise SettingsError(f"additional_config: {additional!r} is not a JSON object")
    defaults: dict[str, Any] = {
        "served_model_name": [served_name],
        "use_tqdm_on_load": False,
        # A terminal sends Ctrl-C to every process of the group: the engine then finishes what runs, as the server does.
        "shutdown_timeout": math.ceil(drain_s),
    }
    required: dict[str, Any] = {
        "model": model,
        "additional_config": {**additional, **(to_processes or {}), CONFIG_KEY: progress_socket},
    }
    if log_requests:
        defaults |= {"enable_log_requests": True, "enable_log_outputs": True, "enable_log_deltas": False}
    return {**defaults, **device_defaults, **user, **required}
