"""What each of vLLM's loaders (`load_format`) needs: a package, a device. Told before anything is fetched or loaded.

From vLLM 0.32: vllm/model_executor/model_loader/__init__.py lists the formats, its METADATA the packages.
"""

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engine.s3_files import PICKLE_FORMATS, PICKLES
from serving.errors import ModelUnavailable, SettingsError
from serving.settings_names import nearest

PICKLES_KEY = "tokenport_pickles"
_PLUGINS = "vllm.general_plugins"
_KNOWN_PLUGINS = ("serving.", "vllm.")


@dataclass(frozen=True)
class Loader:
    """`module` is importable where the format's package is installed, which `extra` of Tokenport brings, or `package` where no extra does;
    `not_on_cpu` says why vLLM cannot use it on a CPU."""

    module: str = ""
    extra: str = ""
    package: str = ""
    not_on_cpu: str = ""


_DUMP = (
    "on the CPU vLLM repacks weights once they are loaded, so that its dump lacks them; tokenport prepare writes files a rank that serve"
)
LOADERS = {
    "auto": Loader(),
    "hf": Loader(),
    "safetensors": Loader(),
    "mistral": Loader(),
    "pt": Loader(),
    "npcache": Loader(),
    "dummy": Loader(),
    "sharded_state": Loader(not_on_cpu=_DUMP),
    "runai_streamer": Loader("runai_model_streamer", "runai"),
    "runai_streamer_sharded": Loader("runai_model_streamer", "runai", not_on_cpu=_DUMP),
    "tensorizer": Loader("tensorizer", "tensorizer"),
    "fastsafetensors": Loader("fastsafetensors", "fastsafetensors", not_on_cpu="it copies to a CUDA device"),
    "instanttensor": Loader("instanttensor", "instanttensor", not_on_cpu="it copies to a CUDA device"),
    "modelexpress": Loader("modelexpress", package="modelexpress", not_on_cpu="it moves weights between GPUs"),
    "ipc_cache": Loader(not_on_cpu="it shares memory of a GPU between processes"),
}
"""Every format of vLLM 0.32. A test holds the table equal to vLLM's."""
_UNREAD_PICKLES = (".pth", ".ckpt")


def check_loader(engine: Mapping[str, Any], *, on_cpu: bool, weights_on_s3: bool = False) -> None:
    """`engine` are vLLM's arguments that the user set.

    Raises:
        SettingsError: the format is unknown, cannot work on this device, or needs a package that is missing.
    """
    name = str(engine.get("load_format", "auto")).lower()
    loader = LOADERS.get(name)
    if loader is None:
        _check_unknown(name)
        return
    if on_cpu and loader.not_on_cpu:
        raise SettingsError(f"load_format={name} does not work on the CPU: {loader.not_on_cpu}; leave it out")
    modules = [loader.module] if loader.module else []
    if weights_on_s3 and modules == ["runai_model_streamer"]:
        modules.append("runai_model_streamer_s3")
    for module in modules:
        if importlib.util.find_spec(module) is None:
            install = f"tokenport[{loader.extra}]" if loader.extra else loader.package
            raise SettingsError(f"load_format={name} needs the package {module.replace('_', '-')}: pip install '{install}'")


def _check_unknown(name: str) -> None:
    """Other packages may register loaders of theirs; which, only their code knows."""
    others = [point for point in importlib.metadata.entry_points(group=_PLUGINS) if not point.value.startswith(_KNOWN_PLUGINS)]
    if not others:
        near = nearest(name, LOADERS)
        raise SettingsError(f"load_format={name} is none of {', '.join(LOADERS)}" + (f"; did you mean {near}?" if near else ""))


def check_pickles(folder: Path, engine: Mapping[str, Any]) -> None:
    """A pickle is read where `load_format` asks for one, and never because there is nothing else.

    Raises:
        ModelUnavailable: there are no safetensors and it was not asked for, or what was asked for is not there.
    """
    load_format = engine.get("load_format", "auto")
    names = sorted(file.name for file in folder.iterdir())
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    pickles = [name for name in names if name.endswith(PICKLES)]
    if load_format in ("auto", "hf", "safetensors", "mistral") and not has_safetensors:
        unread = [name for name in names if name.endswith(_UNREAD_PICKLES)]
        if pickles:
            told = f"{folder} has its weights as pickles only ({pickles[0]}), which can run code"
            raise ModelUnavailable(f"{told}: convert them once ({convert_command(folder)}), or ask for them with --load-format pt")
        if unread:
            raise ModelUnavailable(f"{folder} has its weights in {unread[0]} only, which vLLM does not read: convert them to safetensors")
    if load_format == "pt" and has_safetensors and not any(name.endswith(".pt") for name in names):
        raise ModelUnavailable(f"load_format=pt: {folder} has no *.pt, and safetensors beside its *.bin: leave load_format out")
    if load_format in PICKLE_FORMATS and not pickles:
        raise ModelUnavailable(f"load_format={load_format} reads *.bin and *.pt, of which {folder} has none: leave load_format out")


def convert_command(folder: Path) -> str:
    """Writes the model in `folder` as safetensors. Transformers unpickles tensors alone, no other objects."""
    code = f"from transformers import AutoModelForCausalLM as M; M.from_pretrained({str(folder)!r}, dtype='auto').save_pretrained('OUT')"
    return f'python -c "{code}"; copy the tokenizer to OUT too'


def vllms_load_format(engine: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """`engine` with vLLM's name for what its documents call `pt`: its `pt` reads *.pt alone, and *.bin only goes by `hf`."""
    if engine.get("load_format") != "pt" or any(folder.glob("*.pt")) or not any(folder.glob("*.bin")):
        return engine
    return {**engine, "load_format": "hf"}


def pickle_permission(engine: Mapping[str, Any]) -> dict[str, Any]:
    """For vLLM's `additional_config`: whether the user asked for pickles."""
    return {PICKLES_KEY: True} if engine.get("load_format") in PICKLE_FORMATS else {}
