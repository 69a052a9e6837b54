"""A safetensors checkpoint as a table of tensors: which file, what type and shape, at which bytes.

The format: 8 bytes with the header's length, the header as JSON, the tensors. https://github.com/huggingface/safetensors#format
Tensors are read with plain reads, not mapped: a mapping counts as memory of this process until the whole file is done.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.errors import ModelUnavailable

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ITEM_BYTES = dict(F64=8, F32=4, F16=2, BF16=2, I64=8, I32=4, I16=2, I8=1, U64=8, U32=4, U16=2, U8=1, BOOL=1, F8_E4M3=1, F8_E5M2=1)
_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer headers."""
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file. `dtype` is safetensors' name; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def num_bytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def read_header(file: Path) -> tuple[dict[str, TensorInfo], bytes]:
    """The tensors of one file in the order of their bytes, and the header as it stands.

    Raises:
        ModelUnavailable: the file cannot be read, is no safetensors file, or is shorter or longer than its header says.
    """
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else size_bytes
            header = opened.read(header_bytes) if header_bytes <= min(size_bytes, _MAX_HEADER_BYTES) else b""
        entries = json.loads(header)
        rows = sorted((entry["data_offsets"], name, entry) for name, entry in entries.items() if name != "__metadata__")
        tensors = {
            name: TensorInfo(name, entry["dtype"], tuple(entry["shape"]), file, 8 + header_bytes + offsets[0])
            for offsets, name, entry in rows
        }
        fits = all(tensor.num_bytes == offsets[1] - offsets[0] for tensor, (offsets, _, _) in zip(tensors.values(), rows, strict=True))
    except OSError as error:
        raise ModelUnavailable(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelUnavailable(f"{file} is no safetensors file that is known here ({error!r}): copy it anew") from error
    end = 8 + header_bytes + (rows[-1][0][1] if rows else 0)
    if not fits or end != size_bytes:
        raise ModelUnavailable(f"{file} is damaged: it has {size_bytes} bytes, its header says {end}; copy it anew")
    return tensors, header


def read_tensor(info: TensorInfo) -> "Tensor":
    """The tensor itself, in memory of its own. Raises `ModelUnavailable` where the file has become shorter, and `OSError`."""
    import torch

    data = torch.empty(info.num_bytes, dtype=torch.uint8)
    view = memoryview(data.numpy())
    with info.file.open("rb", buffering=0) as file:
        file.seek(info.offset)
        done = 0
        while done < info.num_bytes:
            count = file.readinto(view[done : done + _CHUNK_BYTES])
            if not count:
                raise ModelUnavailable(f"{info.file} became shorter while it was read")
            done += count
    return data.view(getattr(torch, _TORCH_NAMES[info.dtype])).reshape(info.shape)


def read_chunks(info: TensorInfo) -> Iterator[bytes]:
    """The tensor's bytes, 16 MiB at a time. Raises as `read_tensor`."""
    with info.file.open("rb", buffering=0) as file:
        file.seek(info.offset)
        left = info.num_bytes
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ModelUnavailable(f"{info.file} became shorter while it was read")
            left -= len(chunk)
            yield chunk


def header_of(tensors: list[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The first bytes of a file that holds these tensors (name, dtype, shape) one after the other: length and header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    # The library aligns the tensors to 8 bytes in the same way.
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header
