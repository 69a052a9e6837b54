"""bitsandbytes checkpoints, LLM.int8() and NF4, written by transformers, so that they can be compared with our INT8.

Unlike INT8 the whole model is in memory, and an interrupted run starts anew: transformers loads, quantises and saves it in one go.
"""

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.engine.prepare.checkpoint import TensorInfo, read_header, read_tensor
from serving.engine.prepare.plan import Record, check_space
from serving.engine.prepare.source import Source, other_files
from serving.engine.prepare.transform import LayerError
from serving.engine.prepare.writing import entry_of, seal
from serving.errors import ModelUnavailable, StartError

if TYPE_CHECKING:
    from torch import Tensor, nn

_LARGEST_ERROR = 0.25
"""NF4 loses a tenth of a normal weight. bitsandbytes 0.50 loses up to four tenths on a CPU where rows are shorter than its blocks of 64."""
_WORK = ".tokenport-work"
_MEMORY_FACTOR = 1.3
"""The 16-bit model and the quantised one, of which layers are exchanged one by one, and what a layer's arithmetic takes."""


def check_installed() -> None:
    """Raise `StartError` where the package is missing, before anything is loaded."""
    try:
        importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        told = "--quantization llm-int8 and nf4 need the package bitsandbytes, which is not installed"
        raise StartError(f"{told}: run make setup, or take --quantization int8") from None


def write_through_transformers(method: str, source: Source, record: Record, head: Mapping[str, Any]) -> Path:
    """Quantise `source` by `method` and write it to the record's folder. Returns the manifest.

    Raises:
        ModelUnavailable: memory or disk are too small, or transformers cannot quantise this model.
    """
    source_bytes = sum(tensor.num_bytes for tensor in source.tensors.values())
    _check_memory(source_bytes)
    check_space(record.folder, source_bytes)
    record.save()
    model = _quantized(method, source)
    errors = _layer_errors(model, source)
    if not errors:
        raise ModelUnavailable(f"{source.folder}: bitsandbytes found no linear layer in it")
    kept = {
        name.removesuffix(".weight"): "no linear layer for bitsandbytes"
        for name, value in model.named_parameters()
        if _is_kept_matrix(value)
    }
    for leftover in record.folder.glob(f"*{_WORK}"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(suffix=_WORK, dir=record.folder) as work:
        model.save_pretrained(work, max_shard_size="1GB")
        # config.json comes last: without it nobody takes the folder for a model.
        written = sorted(Path(work).iterdir(), key=lambda file: (file.name == "config.json", file.name))
        for file in other_files(source.folder):
            shutil.copyfile(file, record.folder / file.name)
        for file in written:
            if file.suffix == ".safetensors":
                _compare(file, model.state_dict())
                record.finished[file.name] = entry_of(file) | {"layers": []}
            file.chmod(0o644)
            os.replace(file, record.folder / file.name)
    next(iter(record.finished.values()))["layers"] = [asdict(error) for error in errors]
    return seal(record, dict(head) | {"quantized_layers": len(errors), "kept": kept})


def _check_memory(source_bytes: int) -> None:
    import psutil

    needed, free = int(source_bytes * _MEMORY_FACTOR), psutil.virtual_memory().available
    if free < needed:
        told = f"transformers quantises a model as a whole, which needs {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free"
        raise ModelUnavailable(f"{told}: take --quantization int8, which goes tensor by tensor, or a larger machine")


def _quantized(method: str, source: Source) -> "nn.Module":
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    if method == "nf4":
        chosen = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    else:
        chosen = {"load_in_8bit": True}
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        return AutoModelForCausalLM.from_pretrained(
            source.folder,
            quantization_config=BitsAndBytesConfig(**chosen),
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise ModelUnavailable(f"transformers cannot quantise {source.folder} by {method}: {' '.join(str(error).split())[:300]}") from error


def _is_kept_matrix(value: "Tensor") -> bool:
    return value.dim() >= 2 and value.is_floating_point() and type(value).__name__ == "Parameter"


def _layer_errors(model: "nn.Module", source: Source) -> list[LayerError]:
    """Each quantised layer against the source's weight. Raises `ModelUnavailable` where it is another weight altogether."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    errors = []
    for name, module in model.named_modules():
        info = source.tensors.get(f"{name}.weight")
        if info is None or type(module).__name__ not in ("Linear4bit", "Linear8bitLt"):
            continue
        found = dequantize_bnb_weight(module.weight, getattr(module, "state", None)).cpu()
        errors.append(_error(name, info, found))
    return errors


def _compare(file: Path, state: Mapping[str, "Tensor"]) -> None:
    """Read a file again and compare it with the model. Raises `ModelUnavailable` where it is another."""
    import torch

    for name, info in read_header(file)[0].items():
        if name in state and not torch.equal(read_tensor(info), state[name].cpu()):
            raise ModelUnavailable(f"{name}: what was read back is not what was written; look after this disk")


def _error(layer: str, info: TensorInfo, found: "Tensor") -> LayerError:
    exact = read_tensor(info).float()
    norm = float(exact.norm())
    relative = float((found.float() - exact).norm()) / norm if norm else 0.0
    if relative > _LARGEST_ERROR:
        raise ModelUnavailable(f"{layer}: after quantising it is {relative:.0%} away from the source's weight")
    mean_square = norm**2 / exact.numel()
    return LayerError(layer, relative, float(exact.abs().max()) / mean_square**0.5 if mean_square else 0.0)
