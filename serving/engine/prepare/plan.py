"""What is to be written and what is already: the shards, and the record beside them that survives a kill.

Rules: the record names the settings and the source; a finished shard is entered after it is in its place, so one without an entry is made
anew. A folder that holds anything but such a record is not touched.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from serving.engine.prepare.checkpoint import ITEM_BYTES, SINGLE, TensorInfo, header_of
from serving.engine.prepare.transform import Output, Transform
from serving.errors import ModelUnavailable, SettingsError

RECORD = "tokenport-prepare.json"
"""In OUT as long as the work is not done."""
MANIFEST = "tokenport-manifest.json"
LOCK = ".tokenport-prepare.lock"
PART = ".part"
SCHEMA_VERSION = 1
MAX_SHARD_BYTES = 1_000_000_000
_SPARE_BYTES = 16_000_000
"""For config.json, the manifest and the file system's own."""


@dataclass(frozen=True)
class Shard:
    """One file to write: the source's tensors in it, and what they become, in the order of the file."""

    file: str
    tensors: tuple[TensorInfo, ...]
    outputs: tuple[Output, ...]

    @property
    def header(self) -> bytes:
        """Its first bytes."""
        return header_of([(output.name, output.dtype, output.shape) for output in self.outputs])

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return len(self.header) + sum(map(output_bytes, self.outputs))


def output_bytes(output: Output) -> int:
    """What one output takes in a file."""
    return TensorInfo(output.name, output.dtype, output.shape, Path(), 0).num_bytes


def plan_shards(tensors: Sequence[TensorInfo], transform: Transform, max_bytes: int = MAX_SHARD_BYTES) -> list[Shard]:
    """Tensors in the source's order, in files of at most `max_bytes` (a single larger tensor excepted)."""
    groups: list[list[TensorInfo]] = [[]]
    filled = 0
    for tensor in tensors:
        size = sum(map(output_bytes, transform.outputs(tensor)))
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    names = [SINGLE] if len(groups) == 1 else [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    return [Shard(name, tuple(group), _outputs(group, transform)) for name, group in zip(names, groups, strict=True)]


def _outputs(tensors: Sequence[TensorInfo], transform: Transform) -> tuple[Output, ...]:
    """Wide types first, as the safetensors library orders them: so that each tensor starts where its type wants it to."""
    outputs = [output for tensor in tensors for output in transform.outputs(tensor)]
    return tuple(sorted(outputs, key=lambda output: (-ITEM_BYTES[output.dtype], output.name)))


class Record:
    """The record of one preparation, and the folder it is in. Made by `open_output`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], source: Mapping[str, str], finished: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.source = dict(source)
        self.finished = finished
        """By file name: bytes, sha256, and the error of each layer in it."""

    def enter(self, file: str, entry: Mapping[str, Any]) -> None:
        """Note that a shard is whole and in its place."""
        self.finished[file] = dict(entry)
        self.save()

    def save(self) -> None:
        """Write the record; at no moment is half of one there."""
        content = {"schema_version": SCHEMA_VERSION, "settings": self.settings, "source": self.source, "finished": self.finished}
        write_json(self.folder / RECORD, content)

    def has(self, shard: Shard) -> bool:
        """Whether the shard was finished by an earlier run and still has its size."""
        try:
            return bool(self.finished[shard.file]["bytes"] == (self.folder / shard.file).stat().st_size == shard.num_bytes)
        except (KeyError, OSError):
            return False


def open_output(out: Path, settings: Mapping[str, Any], source: Mapping[str, str]) -> Record:
    """The record of what is in `out`; nothing is written yet.

    Raises:
        SettingsError: `out` holds something else, or was begun with other settings or from another source.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file: name a new or empty folder to write to")
    if (out / MANIFEST).exists() or (out / RECORD).exists():
        name = RECORD if (out / RECORD).exists() else MANIFEST
        return _existing(out, out / name, settings, source)
    if out.is_dir() and (names := sorted(set(os.listdir(out)) - {LOCK})):
        raise SettingsError(f"{out} is not empty (it holds {names[0]}): name a new or empty folder to write to")
    return Record(out, settings, source, {})


@contextmanager
def lock_output(out: Path) -> Iterator[None]:
    """Make the folder if it is not there and hold it for this process. Raises `SettingsError` if another one has it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(f"{out} is being written by another process: wait for it, or name another folder") from None
    except OSError as error:
        raise SettingsError(f"cannot write to {out} ({error.strerror}): name another folder") from error
    try:
        yield
    finally:
        # Nobody waits for it: a second process gives up at once.
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


def _existing(out: Path, file: Path, settings: Mapping[str, Any], source: Mapping[str, str]) -> Record:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found, found_source, finished = content["settings"], content["source"], content["finished"]
        is_ours = content["schema_version"] == SCHEMA_VERSION and isinstance(finished, dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{out} holds a {file.name} that `tokenport prepare` did not write: name a new or empty folder") from error
    if not is_ours:
        raise SettingsError(f"{out} was written by another version of Tokenport: name a new or empty folder")
    if not finished:
        return Record(out, settings, source, {})  # begun, but nothing came of it yet
    differing = [
        f"{name} was {found.get(name)!r} and is {settings.get(name)!r}"
        for name in sorted({*found, *settings})
        if found.get(name) != settings.get(name)
    ]
    if differing:
        raise SettingsError(f"{out} was begun with other settings ({'; '.join(differing)}): repeat them, or name a new folder")
    if found_source != dict(source):
        changed = "has changed since" if found_source.get("name") == source["name"] else f"was {found_source.get('name')}"
        raise SettingsError(f"{out} was begun from another source (it {changed}): name a new folder")
    return Record(out, settings, source, finished)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise `ModelUnavailable` unless the disk has room for what is still to be written."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + _SPARE_BYTES:
        told = f"{folder} needs {(needed_bytes + _SPARE_BYTES) / 1e9:.2f} GB more and has {free_bytes / 1e9:.2f} GB"
        raise ModelUnavailable(f"disk full: {told}; free some, or write to another disk")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    part = file.with_name(file.name + PART)
    with part.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(content, indent=1) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
