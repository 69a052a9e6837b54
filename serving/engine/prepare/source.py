"""The checkpoint to prepare from: found, looked through, and refused where it cannot be used.

Rules: a folder with config.json and safetensors, whole, not quantised yet. Its identity (names, sizes, times, headers) tells a later run
whether it is still the same; contents are not hashed, which would cost as much as the work itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engine.embedded_model import NAME as EMBEDDED
from serving.engine.fetch import fetch
from serving.engine.interface import Report
from serving.engine.model_source import find_model
from serving.engine.preflight import read_config
from serving.engine.prepare.checkpoint import INDEX, TensorInfo, read_header
from serving.errors import ModelUnavailable
from serving.settings import Settings

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".h5", ".msgpack")
_WEIGHTS = (*_PICKLED, ".safetensors", ".gguf", ".onnx", ".tensors")
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Source:
    """A checkpoint: its folder, config.json, all tensors by name, and what tells it from another one or from a changed one."""

    folder: Path
    name: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    identity: str


def find_folder(model: str, settings: Settings, environ: Mapping[str, str], report: Report) -> tuple[Path, str]:
    """The folder of `model` (whatever can be served, or `embedded`), which is fetched if it is not here, and the name to show for it.

    `report(step, fraction)` hears how far fetching is.

    Raises:
        StartError: in one line.
    """
    source = find_model(EMBEDDED if model == "embedded" else model, embedded_allowed=True)
    if source.kind == "hub":
        return _downloaded(source.location, environ), source.served_name
    return Path(fetch(source, settings, report).location), source.served_name


def _downloaded(model: str, environ: Mapping[str, str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from serving.engine.hub import must_work_offline

    is_offline = must_work_offline(model, None, environ)
    try:
        # Neither pickle nor code: the same files that are copied to the prepared checkpoint.
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "LICENSE*", "NOTICE*"]
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=is_offline))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(f"cannot download {model}: {' '.join(str(error).split())}") from error


def read_source(folder: Path, name: str, *, may_be_quantized: bool = False) -> Source:
    """Look a checkpoint through. `may_be_quantized`: it may be in INT8 as `tokenport prepare` writes it.

    Raises:
        ModelUnavailable: it is not whole, is quantised already, or has no safetensors.
    """
    config = read_config(folder)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and part.get("quantization_config"):
            method = part["quantization_config"].get("quant_method", "some method")
            if may_be_quantized and method == "compressed-tensors" and part["quantization_config"].get("format") == "int-quantized":
                continue
            raise ModelUnavailable(f"{folder} is quantised already ({method}): prepare from the 16-bit checkpoint")
    files = _files(folder)
    tensors: dict[str, TensorInfo] = {}
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in files:
        found, header = read_header(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise ModelUnavailable(f"{folder} has {twice[0]} in {file.name} and in {tensors[twice[0]].file.name}: copy the model anew")
        tensors |= found
        stat = file.stat()
        digest.update(f"\0{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode() + header)
    return Source(folder, name, config, tensors, digest.hexdigest())


def other_files(folder: Path) -> list[Path]:
    """What goes along unchanged: tokenizer, templates, licence. No weights, nothing pickled, no code, nothing hidden."""

    def goes_along(file: Path) -> bool:
        name = file.name
        is_replaced = name in ("config.json", INDEX, "tokenport-manifest.json", "SHA256SUMS")
        is_weights = name.lower().endswith((*_WEIGHTS, ".py", ".pyc", ".so", ".index.json"))
        return file.is_file() and not is_replaced and not is_weights and not name.startswith(".")

    return [file for file in sorted(folder.iterdir()) if goes_along(file)]


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        names = _indexed(index)
        if missing := [name for name in names if not (folder / name).is_file()]:
            shown = ", ".join(missing[:_NUM_SHOWN])
            raise ModelUnavailable(f"{folder} lacks {len(missing)} of the {len(names)} files that {INDEX} names: {shown}")
        return [folder / name for name in names]
    if files := sorted(folder.glob("*.safetensors")):
        return files
    if pickled := sorted(file.name for file in folder.iterdir() if file.name.lower().endswith(_PICKLED)):
        told = f"{folder} has no safetensors, only {', '.join(pickled[:_NUM_SHOWN])}"
        raise ModelUnavailable(f"{told}: pickled weights can run code and are not read; save the model as safetensors first")
    raise ModelUnavailable(f"{folder} has no weights: no *.safetensors file in it; copy the model anew")


def _indexed(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{index} names no files (weight_map): copy the model anew") from error
    if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ModelUnavailable(f"{index} names {outside[0]!r}, which is no file of its own folder: copy the model anew")
    return names
