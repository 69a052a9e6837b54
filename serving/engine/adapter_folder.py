"""A folder that should hold a LoRA adapter in PEFT's format, looked at before vLLM is shown it: where it is, then what is in it.

Only folders under the allowed roots are read, symbolic links followed first, and only safetensors: other weights are pickles, whose loading
may run code. Whether the weights fit the model is for vLLM to say (`lora_fit.py`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.errors import InvalidRequest

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PICKLES = ("adapter_model.bin", "adapter_model.pt")
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header as a little-endian integer."""
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_MAX_CONFIG_BYTES = 1_000_000
_MAX_SHOWN = 300


def find_folder(src: str, roots: Sequence[Path]) -> Path:
    """The real path of the folder `src`.

    Raises:
        InvalidRequest: not an absolute path, not under one of `roots`, or no folder.
    """
    if not src.startswith("/") or "\0" in src:
        raise _refusal(
            f"{src[:_MAX_SHOWN]!r} is not an absolute path; adapters are read from folders under {_listed(roots)}, nothing is downloaded"
        )
    folder = _real(Path(src))
    if not _is_inside(folder, roots):
        raise _refusal(f"{src[:_MAX_SHOWN]!r} is not under {_listed(roots)} (adapter_roots)")
    try:
        if folder.is_dir():
            return folder
        reason = "is not a folder" if folder.exists() else "does not exist"
    except OSError as error:
        reason = error.strerror or "cannot be read"
    raise _refusal(f"{src[:_MAX_SHOWN]!r} {reason}")


def check_folder(folder: Path, roots: Sequence[Path], max_rank: int) -> None:
    """Look at the two files of an adapter.

    Raises:
        InvalidRequest: one is missing, lies elsewhere or is not what its name says, or the rank is above `max_rank`.
    """
    _check_config(_file(folder, CONFIG, roots), max_rank)
    _check_weights(_file(folder, WEIGHTS, roots))


def _file(folder: Path, name: str, roots: Sequence[Path]) -> Path:
    file = _real(folder / name)
    if not _is_inside(file, roots):
        raise _refusal(f"{name} in {folder} is a link to somewhere not under {_listed(roots)} (adapter_roots)")
    if file.is_file():
        return file
    pickles = [pickle for pickle in _PICKLES if (folder / pickle).exists()]
    if name == WEIGHTS and pickles:
        raise _refusal(f"{folder} has {pickles[0]} and no {name}: a pickle may run code and is not read; save it as safetensors")
    raise _refusal(f"{folder} has no {name}")


def _check_config(file: Path, max_rank: int) -> None:
    try:
        with file.open("rb") as stream:
            config: Any = json.loads(stream.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise _refusal(f"{file} is not a JSON object")
    if config.get("peft_type", "LORA") != "LORA":
        raise _refusal(f"{file}: peft_type is {config['peft_type']!r}, and only 'LORA' can be served")
    rank = config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise _refusal(f"{file}: r is {rank!r}, and must be the rank, a positive integer")
    if rank > max_rank:
        raise _refusal(f"{file}: r is {rank}, and adapters may have a rank of at most {max_rank} here (max_lora_rank)")


def _check_weights(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            num_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if num_bytes > min(_MAX_HEADER_BYTES, file.stat().st_size - _LENGTH_BYTES):
                raise _refusal(f"{file} is not a safetensors file, or is cut off")
            header: Any = json.loads(stream.read(num_bytes))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(f"{file} is not a safetensors file: {error}") from error
    if not isinstance(header, dict) or not header.keys() - {"__metadata__"}:
        raise _refusal(f"{file} holds no tensors")


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise _refusal(f"{str(path)[:_MAX_SHOWN]!r} cannot be followed: {error}") from error


def _is_inside(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root.resolve()) for root in roots)


def _listed(roots: Sequence[Path]) -> str:
    return " or ".join(map(str, roots))


def _refusal(reason: str) -> InvalidRequest:
    return InvalidRequest(f"src: {reason}", param="src")
