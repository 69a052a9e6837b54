"""Write a prepared checkpoint, tensor by tensor: shards, index, what goes along, and config.json last: half of it is no model.

Steps for a shard: its header, known from shapes; each tensor read, changed, put at its offset; the file read again and compared with the
source; renamed into place; entered into the record. What a tensor becomes is the transform's business.
"""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from serving.engine.cache_folder import sync
from serving.engine.prepare.checkpoint import INDEX, read_chunks, read_header, read_tensor
from serving.engine.prepare.plan import LOCK, MANIFEST, PART, RECORD, SCHEMA_VERSION, Record, Shard, check_space, output_bytes, write_json
from serving.engine.prepare.source import Source, other_files
from serving.engine.prepare.transform import Transform
from serving.errors import ModelUnavailable

if TYPE_CHECKING:
    from torch import Tensor

Advance = Callable[[int], None]
"""Hears the bytes read from the source since the last call."""


def write_shards(shards: Sequence[Shard], transform: Transform, record: Record, advance: Advance) -> int:
    """Write the shards that are not there yet. Returns how many were.

    Raises:
        ModelUnavailable: the disk is too small, a layer cannot be changed, or the disk does not give back what was written.
    """
    for leftover in record.folder.glob(f"*{PART}"):
        leftover.unlink()
    missing = [shard for shard in shards if not record.has(shard)]
    check_space(record.folder, sum(shard.num_bytes for shard in missing))
    for shard in shards:
        if shard not in missing:
            advance(sum(tensor.num_bytes for tensor in shard.tensors))
    for shard in missing:
        part = record.folder / (shard.file + PART)
        _write(part, shard, transform, advance)
        entry = verify(part, shard, transform)
        part.replace(record.folder / shard.file)
        sync(record.folder)
        record.enter(shard.file, entry)
    return len(shards) - len(missing)


def finish(record: Record, shards: Sequence[Shard], source: Source, config: Mapping[str, Any], report: Mapping[str, Any]) -> Path:
    """Index, tokenizer and the like, manifest, config.json; then the record goes. Returns the manifest."""
    if len(shards) > 1:
        weight_map = {output.name: shard.file for shard in shards for output in shard.outputs}
        total = sum(output_bytes(output) for shard in shards for output in shard.outputs)
        write_json(record.folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    for file in other_files(source.folder):
        _copy(file, record.folder / file.name)
    write_json(record.folder / "config.json", config)
    return seal(record, report)


def seal(record: Record, report: Mapping[str, Any]) -> Path:
    """Write the manifest over all files and take the record away. Returns the manifest."""
    finished = {file: {name: entry[name] for name in ("bytes", "sha256")} for file, entry in record.finished.items()}
    own = (RECORD, MANIFEST, LOCK)
    files = finished | {
        file.name: finished.get(file.name) or entry_of(file)
        for file in sorted(record.folder.iterdir())
        if file.is_file() and file.name not in own
    }
    manifest = record.folder / MANIFEST
    head = {"schema_version": SCHEMA_VERSION, "settings": record.settings, "source": record.source, "finished": record.finished}
    write_json(manifest, head | {"files": files} | dict(report))
    (record.folder / RECORD).unlink(missing_ok=True)
    sync(record.folder)
    return manifest


def _write(part: Path, shard: Shard, transform: Transform, advance: Advance) -> None:
    """One file; every tensor goes to its own place, whatever the order they come in."""
    header = shard.header
    offsets: dict[str, int] = {}
    end = len(header)
    for output in shard.outputs:
        offsets[output.name] = end
        end += output_bytes(output)
    with part.open("wb") as file:
        file.write(header)
        for tensor in shard.tensors:
            if transform.is_copied(tensor):
                file.seek(offsets[tensor.name])
                for chunk in read_chunks(tensor):
                    file.write(chunk)
            else:
                for name, made in transform.convert(tensor, read_tensor(tensor)).items():
                    file.seek(offsets[name])
                    _put(file, made)
            advance(tensor.num_bytes)
        file.flush()
        os.fsync(file.fileno())
        # What is read again for the comparison shall come from the disk, not from memory.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _put(file: BinaryIO, tensor: "Tensor") -> None:
    import torch

    file.write(memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy()))


def verify(file: Path, shard: Shard, transform: Transform) -> dict[str, Any]:
    """Read a shard again and compare it with its plan and the source. Returns its entry for the record.

    Raises:
        ModelUnavailable: it is not what was written.
    """
    found, header = read_header(file)
    damaged = ModelUnavailable(f"{file}: what was read back is not what was written; look after this disk")
    if struct.pack("<Q", len(header)) + header != shard.header or file.stat().st_size != shard.num_bytes:
        raise damaged
    errors = []
    for tensor in shard.tensors:
        if transform.is_copied(tensor):
            if any(left != right for left, right in zip(read_chunks(tensor), read_chunks(found[tensor.name]), strict=True)):
                raise damaged
        else:
            written = {output.name: read_tensor(found[output.name]) for output in transform.outputs(tensor)}
            if error := transform.check(tensor, read_tensor(tensor), written):
                errors.append(asdict(error))
    return entry_of(file) | {"layers": errors}


def entry_of(file: Path) -> dict[str, Any]:
    """A file's size and SHA-256."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _copy(file: Path, to: Path) -> None:
    part = to.with_name(to.name + PART)
    shutil.copyfile(file, part)
    part.replace(to)


def check_finished(folder: Path) -> None:
    """Compare every file of a finished folder with its manifest.

    Raises:
        ModelUnavailable: one is missing or another than was written.
    """
    for name, entry in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].items():
        file = folder / name
        if not file.is_file() or entry_of(file) != entry:
            raise ModelUnavailable(f"{file} is not what its {MANIFEST} says: delete {folder} and prepare anew")
