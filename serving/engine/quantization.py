"""Which `quantization` can work here, told before vLLM is imported. Pure: what the user set, the model's config.json, what is installed.

The names themselves are vLLM's and its plugins' to know; only what is known to fail is refused. A checkpoint that is quantised already is
left alone: there `quantization=int8` has no effect, which is told where vLLM reads the checkpoint (`int8_setting.py`).
"""

import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from serving.errors import SettingsError

INT8 = "int8"
_BITSANDBYTES = "bitsandbytes"
_BITSANDBYTES_PACKAGE = "vllm-bnb-plugin"
_DUMPS = ("runai_streamer_sharded", "sharded_state", "tensorizer")
"""Formats of what a rank held in memory: no weight passes through the place where it could be quantised."""


def check_quantization(engine: Mapping[str, Any], config: Mapping[str, Any], *, on_cpu: bool) -> None:
    """`engine` are vLLM's arguments that the user set, `config` the model's config.json, empty where it is not on this machine.

    Raises:
        SettingsError: the quantisation asked for cannot be had here.
    """
    method = checkpoint_method(config)
    asked = {name: engine.get(name) for name in ("quantization", "load_format")} | {"the checkpoint": method}
    for name, value in asked.items():
        if value == _BITSANDBYTES:
            _check_bitsandbytes(name, on_cpu=on_cpu)
    if config and method is None and engine.get("quantization") is None and engine.get("quantization_config"):
        raise SettingsError(
            "quantization_config has no effect: the checkpoint is in 16 bits, and no quantization is set; set quantization=int8 too"
        )
    if engine.get("quantization") == INT8 and method is None:
        _check_int8(engine)


def checkpoint_method(config: Mapping[str, Any]) -> str | None:
    """How a checkpoint is quantised, by the name that its config.json gives, None where it says nothing."""
    text_config = config.get("text_config")
    for holder in (config, text_config if isinstance(text_config, Mapping) else {}):
        for key in ("quantization_config", "compression_config"):
            told = holder.get(key)
            if isinstance(told, Mapping):
                return str(told.get("quant_method", key))
    return None


def has_package(name: str) -> bool:
    """Whether a distribution is installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _check_bitsandbytes(name: str, *, on_cpu: bool) -> None:
    needs = f"{name}: {_BITSANDBYTES} needs CUDA and the package {_BITSANDBYTES_PACKAGE}"
    if on_cpu:
        raise SettingsError(f"{needs}; this is the CPU build: quantization=int8 works here, on a checkpoint in 16 bits")
    if not has_package(_BITSANDBYTES_PACKAGE):
        raise SettingsError(f"{needs}, which is not installed: pip install {_BITSANDBYTES_PACKAGE}; quantization=int8 needs neither")


def _check_int8(engine: Mapping[str, Any]) -> None:
    dtype = engine.get("dtype")
    if dtype in ("float", "float32"):
        raise SettingsError(f"dtype={dtype} and quantization=int8: INT8 kernels answer in 16 bits; dtype can be auto, bfloat16 or float16")
    load_format = engine.get("load_format")
    if load_format in _DUMPS:
        raise SettingsError(
            f"load_format={load_format} and quantization=int8: this format holds weights as they were in memory, which cannot be quantised "
            "while they load; load_format can be auto, or the dump be made of a quantised model"
        )
    told = engine.get("quantization_config")
    patterns = told.get("ignore", []) if isinstance(told, Mapping) else []
    for pattern in patterns if isinstance(patterns, list) else []:
        if isinstance(pattern, str) and pattern.startswith("re:"):
            _check_pattern(pattern)


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise SettingsError(f"quantization_config: ignore: {pattern!r} is no regular expression: {error}") from error
