"""A model folder against the list of its files that lies in it: SHA256SUMS as sha256sum writes it, and tokenport-manifest.json.

Rules: sizes are compared always; with `verify_checksums` also every SHA-256: of small files at once, since they decide how the model is
run; of the weights on threads while the engine starts, and nothing is answered before the last is done. Files in no list are not judged.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from serving.errors import ModelUnavailable

SUMS = "SHA256SUMS"
MANIFEST = "tokenport-manifest.json"
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_MAX_LIST_BYTES = 50_000_000
_NUM_THREADS = 4
"""A core hashes 1 to 2 GB a second, which is more than most disks read; the engine's imports need cores too."""
_DEADLINE_S = 3600.0
"""SageMaker gives a container no longer to become healthy."""


@dataclass(frozen=True)
class Listed:
    """What a list says of one file; None where it says nothing."""

    size_bytes: int | None
    sha256: str | None


class Verification:
    """The weights' checksums, being computed. `failure` is what is known so far; `wait` returns when all is known."""

    def __init__(self, files: Mapping[Path, str]) -> None:
        self.num_files = len(files)
        self.seconds = 0.0
        self._started = time.monotonic()
        self._queue = list(files.items())
        self._done: Future[None] = Future()
        self._lock = threading.Lock()
        self._running = min(_NUM_THREADS, len(files))
        if not files:
            self._done.set_result(None)
        for number in range(self._running):
            # Daemons: a start that fails must not wait for them.
            threading.Thread(target=self._work, name=f"checksums-{number}", daemon=True).start()

    def failure(self) -> ModelUnavailable | None:
        """What differs, if that is known already."""
        error = self._done.exception() if self._done.done() else None
        return error if isinstance(error, ModelUnavailable) else None

    def wait(self) -> None:
        """Raise ModelUnavailable if a file is not what its list says."""
        try:
            self._done.result(_DEADLINE_S)
        except TimeoutError as error:
            told = f"the model's checksums are not computed after {_DEADLINE_S:.0f} s"
            raise ModelUnavailable(f"{told}: set TOKENPORT_VERIFY_CHECKSUMS=false to compare sizes alone") from error

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._queue or self._done.done():
                        break
                    file, sha256 = self._queue.pop()
                _check_hash(file, sha256)
        except (ModelUnavailable, MemoryError) as error:
            with self._lock:
                if not self._done.done():
                    self._done.set_exception(error)
        with self._lock:
            self._running -= 1
            if self._running == 0 and not self._done.done():
                self.seconds = time.monotonic() - self._started
                self._done.set_result(None)


def verify(folder: Path, *, with_hashes: bool, is_whole: bool = True) -> Verification:
    """Compare sizes and small files now, and begin with the weights. Unless the folder `is_whole`, files in a list may be missing.

    Raises:
        ModelUnavailable: a file is missing or differs, or a list cannot be read; in one line that names it.
    """
    return Verification(verify_small_files(folder, with_hashes=with_hashes, is_whole=is_whole))


def verify_small_files(folder: Path, *, with_hashes: bool, is_whole: bool = True) -> dict[Path, str]:
    """The first half of `verify`. Returns the weights with the SHA-256 that each should have."""
    listed = {name: entry for name, entry in read_lists(folder).items() if is_whole or (folder / name).exists()}
    for name, entry in listed.items():
        _check_size(folder / name, entry.size_bytes)
    hashes = {folder / name: entry.sha256 for name, entry in listed.items() if entry.sha256 is not None} if with_hashes else {}
    for file, sha256 in hashes.items():
        if not file.name.endswith(_WEIGHTS):
            _check_hash(file, sha256)
    return {file: sha256 for file, sha256 in hashes.items() if file.name.endswith(_WEIGHTS)}


def read_lists(folder: Path) -> dict[str, Listed]:
    """By the name in `folder`; empty if there is no list. Raises ModelUnavailable."""
    listed: dict[str, Listed] = {}
    if (manifest := folder / MANIFEST).is_file():
        listed |= _manifest(manifest)
    if (sums := folder / SUMS).is_file():
        for name, sha256 in _sums(sums).items():
            size_bytes = listed[name].size_bytes if name in listed else None
            listed[name] = Listed(size_bytes, sha256)
    return listed


def _manifest(file: Path) -> dict[str, Listed]:
    try:
        files = json.loads(_text(file))["files"]
        return {_checked(name, file): _entry(entry) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnavailable(f"{file} is no manifest of files: copy the model anew, or take the file away") from error


def _entry(entry: Any) -> Listed:
    """Of a manifest; a bare number is a size."""
    if not isinstance(entry, dict):
        return Listed(int(entry), None)
    size_bytes, sha256 = entry.get("bytes", entry.get("size_bytes")), entry.get("sha256")
    return Listed(None if size_bytes is None else int(size_bytes), None if sha256 is None else str(sha256))


def _sums(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None and line.strip():
            raise ModelUnavailable(f"{file}, line {number}: expected what sha256sum writes, 64 hexadecimal digits, two spaces and a name")
        if match is not None:
            found[_checked(match[2].removeprefix("./"), file)] = match[1].lower()
    found.pop(SUMS, None)
    return found


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_LIST_BYTES)
        return content.decode()
    except OSError as error:
        raise ModelUnavailable(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ModelUnavailable(f"{file} is no text: take it away, or copy the model anew") from error


def _checked(name: Any, file: Path) -> str:
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts or not str(name).isprintable():
        raise ModelUnavailable(f"{file} names {str(name)[:200]!r}, which is not in its folder")
    return str(path)


def _check_size(file: Path, size_bytes: int | None) -> None:
    try:
        has_bytes = file.stat().st_size
    except OSError as error:
        raise ModelUnavailable(f"{file} is in the list of the model's files, and cannot be read: {error.strerror}") from error
    if size_bytes is not None and has_bytes != size_bytes:
        raise ModelUnavailable(f"{file} has {has_bytes} bytes, and the list of the model's files says {size_bytes}: copy it anew")


def _check_hash(file: Path, sha256: str) -> None:
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"cannot read {file}: {error.strerror}") from error
    if found != sha256.lower():
        raise ModelUnavailable(
            f"checksum mismatch: {file} has SHA-256 {found}, and the list of the model's files says {sha256}; copy it anew"
        )
