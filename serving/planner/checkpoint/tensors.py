"""The tensors of a checkpoint, without their contents: read from the headers of safetensors files.

A header is 8 bytes with its length, then JSON (https://github.com/huggingface/safetensors#format). Knows no model.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import PlanError

INDEX = "model.safetensors.index.json"
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_BYTES = _FLOAT_BYTES | {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}


@dataclass(frozen=True)
class Tensor:
    """`dtype` as safetensors writes it; `shape` is [out, in] for a linear layer's weight."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_elements(self) -> int:
        """1 for a scalar."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the engine casts it to the type that it computes in. A tensor of any other type stays as it is."""
        return self.dtype in _FLOAT_BYTES

    @property
    def num_bytes(self) -> int:
        """In the file."""
        return self.num_elements * _BYTES[self.dtype]


def read_tensors(folder: Path) -> tuple[Tensor, ...]:
    """Those of the safetensors files in `folder`, of which only the headers are read; empty if there are none.

    Raises:
        PlanError: a file is missing or damaged.
    """
    index = folder / INDEX
    names = _files_of_index(index) if index.is_file() else sorted(file.name for file in folder.glob("*.safetensors"))
    return tuple(tensor for name in names for tensor in tensors_of_header(name, _header(folder / name)))


def _files_of_index(index: Path) -> list[str]:
    """The files that a model.safetensors.index.json names."""
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{index}: not an index of safetensors files ({error!r})") from error
    if not all(isinstance(file, str) for file in files):
        raise PlanError(f"{index}: not an index of safetensors files (weight_map has names that are none)")
    return sorted(files)


def tensors_of_header(file: str, header: Mapping[str, Any]) -> list[Tensor]:
    """`header` as parsed; `file` names it in errors.

    Raises:
        PlanError: an entry lacks its shape or has an unknown type.
    """
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, Mapping) or str(entry.get("dtype")) not in _BYTES or not _is_shape(entry.get("shape")):
            raise PlanError(f"{file}: the header's entry {name} has no shape or a type that is not known: {entry}")
        tensors.append(Tensor(name, tuple(entry["shape"]), entry["dtype"]))
    return tensors


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) and size >= 0 for size in value)


def _header(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            # A damaged length must not make us read gigabytes: the format allows 100 MB.
            return dict(json.loads(opened.read(min(size, 100_000_000))))
    except (OSError, struct.error, ValueError, TypeError) as error:
        raise PlanError(f"{file}: not a safetensors file that can be read ({error})") from error
