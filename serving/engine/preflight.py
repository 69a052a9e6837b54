"""What can be known to fail before vLLM is imported, told at once: shared memory, the driver, the model's files, its shape, its template.

Reads small files and the headers of large ones. Only what vLLM would surely refuse is refused here; everything else is vLLM's to judge.
"""

import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from serving.engine.args import num_ranks
from serving.engine.diagnosis.misfits import DRIVER_ADVICE
from serving.engine.loaders import check_pickles
from serving.engine.parallel import check_parallel_sizes
from serving.engine.quantization import check_quantization
from serving.errors import ModelUnavailable, SettingsError, StartError

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_SHM_NEEDED_BYTES = 240 * 2**20
"""vLLM's queue between two processes: 10 chunks of 24 MiB (`MessageQueue` in vllm/distributed/device_communicators/shm_broadcast.py)."""
_CUDA_13_DRIVER = 580
"""The first driver branch with CUDA 13: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html, table of driver versions."""
_NVIDIA_SMI_DEADLINE_S = 10.0
_MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer headers."""
_NUM_SHOWN = 3
_TOKENIZER_FILES = ("tokenizer", "tekken", "vocab", "merges", "spiece", "sentencepiece", "spm", "bpe")
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".npz", ".tensors")


def check_start(engine: Mapping[str, Any], model: str, *, on_cpu: bool) -> None:
    """Raise for the first thing that will not work. `engine` are vLLM's arguments that the user set, `model` a local folder or a hub id.

    Raises:
        StartError: in one line, with what would be right.
    """
    if not on_cpu:
        check_driver(run_nvidia_smi())
    if num_ranks(engine) > 1:
        check_shared_memory(SHM)
    if (template := engine.get("chat_template")) is not None:
        check_template(template)
    folder = Path(model)
    config = read_config(folder) if folder.is_dir() else {}
    check_quantization(engine, config, on_cpu=on_cpu)
    if folder.is_dir():
        check_tokenizer(folder, engine)
        check_parallel_sizes(config, engine, on_cpu=on_cpu)
        check_weights(folder, engine)


def check_driver(nvidia_smi: str) -> None:
    """The CUDA build is for CUDA 13. `nvidia_smi` is what that command prints, empty where it does not run, which vLLM tells better.

    The CUDA version in it is what programs get: more than the driver's own where the container has the libraries for forward compatibility.
    """
    driver = re.search(r"Driver Version: *([0-9.]+)", nvidia_smi)
    cuda = re.search(r"CUDA (?:UMD )?Version: *([0-9.]+)", nvidia_smi)
    if driver is None or int(driver[1].split(".")[0]) >= _CUDA_13_DRIVER or (cuda is not None and int(cuda[1].split(".")[0]) >= 13):
        return
    raise StartError(f"the NVIDIA driver {driver[1]} is older than the {_CUDA_13_DRIVER} that CUDA 13 needs: {DRIVER_ADVICE}")


def run_nvidia_smi() -> str:
    """What nvidia-smi prints; empty where it is missing, fails or hangs."""
    try:
        answer = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=_NVIDIA_SMI_DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def check_shared_memory(shm: Path, needed_bytes: int = _SHM_NEEDED_BYTES) -> None:
    """Ranks talk through shared memory, of which Docker gives 64 MB. On a system without `shm` nothing is checked."""
    if not shm.is_dir():
        return
    free_bytes = shutil.disk_usage(shm).free
    if free_bytes < needed_bytes:
        told = f"{free_bytes // 2**20} MiB free, {needed_bytes // 2**20} MiB needed by several ranks"
        raise StartError(f"{shm} is too small: {told}; start the container with --shm-size=1g or more, or set tensor_parallel_size=1")


def check_template(template: str) -> None:
    """A chat template is a file, or the template itself if it has Jinja's characters; a bare name may be one of vLLM's own."""
    path = Path(template)
    try:
        text = path.read_text()
        name = template
    except OSError as error:
        if not any(character in template for character in "{}\n"):
            if os.sep in template:
                raise SettingsError(f"chat_template: cannot read {template}: {error.strerror}") from error
            return
        text, name = template, "chat_template"
    except ValueError as error:
        raise SettingsError(f"chat_template: {template} is no text: {error}") from error
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(extensions=[jinja2.ext.loopcontrols])
    try:
        environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        # Transformers adds tags of its own, which are unknown here.
        if "unknown tag" not in (error.message or ""):
            raise SettingsError(f"chat_template: {name} does not parse: line {error.lineno}: {error.message}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json."""
    file = folder / "config.json"
    config = _json(file)
    if not isinstance(config, dict):
        raise ModelUnavailable(f"{file} is not a JSON object: copy the model anew")
    return config


def check_tokenizer(folder: Path, engine: Mapping[str, Any]) -> None:
    """Without any tokenizer file neither a prompt nor an answer can be text."""
    if engine.get("tokenizer") is not None or engine.get("skip_tokenizer_init") or engine.get("trust_remote_code"):
        return
    names = [file.name.lower() for file in folder.iterdir()]
    # tokenizer_config.json only says how to read the others.
    names = [name for name in names if name != "tokenizer_config.json"]
    if not any(name.startswith(_TOKENIZER_FILES) or name.endswith(".tiktoken") for name in names):
        raise ModelUnavailable(f"{folder} has no tokenizer: copy the model's tokenizer.json there, or name one with TOKENPORT_TOKENIZER")


def check_weights(folder: Path, engine: Mapping[str, Any]) -> None:
    """Every safetensors file that the index names is there, and every one that will be loaded is as long as its header says."""
    check_pickles(folder, engine)
    if engine.get("load_format", "auto") not in ("auto", "hf", "safetensors"):
        return
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = _shards(index)
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            told = f"{len(missing)} of the {len(shards)} files that {index.name} names: {_listed(missing)}"
            raise ModelUnavailable(f"{folder} lacks {told}; copy the model anew")
        files = [folder / name for name in shards]
    else:
        files = sorted(folder.glob("*.safetensors"))
        if not files and not any(file.name.endswith(_OTHER_WEIGHTS) for file in folder.iterdir()):
            raise ModelUnavailable(f"{folder} has no weights: no *.safetensors file in it; copy the model anew")
    for file in files:
        _check_safetensors(file)


def _shards(index: Path) -> list[str]:
    listed = _json(index)
    weight_map = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(weight_map, dict):
        raise ModelUnavailable(f"{index} names no files (weight_map); copy the model anew")
    return sorted({str(name) for name in weight_map.values()})


def _check_safetensors(file: Path) -> None:
    """The format: 8 bytes with the header's length, the header as JSON, the tensors. https://github.com/huggingface/safetensors#format"""
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else size_bytes
            header = opened.read(header_bytes) if header_bytes <= min(size_bytes, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise ModelUnavailable(f"cannot read {file}: {error.strerror}") from error
    try:
        tensors = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        pointer = start.startswith(b"version ")  # what git leaves in the place of a large file
        why = "is a pointer of Git LFS: run git lfs pull there" if pointer else f"is no safetensors file ({size_bytes} bytes): copy it anew"
        raise ModelUnavailable(f"{file} {why}") from None
    needed_bytes = 8 + header_bytes + end
    if size_bytes != needed_bytes:
        kind = "truncated" if size_bytes < needed_bytes else "damaged"
        raise ModelUnavailable(f"{file} is {kind}: it has {size_bytes} bytes, its header says {needed_bytes}; copy it anew")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelUnavailable(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ModelUnavailable(f"{file} is not JSON: {error}; copy the model anew") from error


def _listed(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    if len(texts) <= 2 * _NUM_SHOWN:
        return ", ".join(texts)
    return f"{', '.join(texts[:_NUM_SHOWN])} and {len(texts) - _NUM_SHOWN} more"
