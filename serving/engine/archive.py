"""A model in a .tar.gz or .tar, unpacked into the cache. The archive is not trusted.

Rules: only files and folders with relative names below the top; a link becomes a second name of a file in the archive, or is refused; what
comes out may not need more than the disk has to spare. What breaks off starts over. A single folder at the top is the model's folder.
"""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from serving.engine.cache_folder import check_space, free_bytes, make_once, megabytes, slug
from serving.engine.interface import Report
from serving.errors import ModelUnavailable

SUFFIXES = (".tar.gz", ".tgz", ".tar")
PHASE = "unpacking"
_MAX_MEMBERS = 100_000
_MAX_PADDING_BYTES = 64 * 2**20
"""tar fills up to 10 kB; what a gzip'd bomb has behind its end is not read to its end."""
_CHUNK_BYTES = 2**20
_STEP = 0.01


def is_archive(name: str) -> bool:
    """Whether it is one by its name."""
    return name.endswith(SUFFIXES)


def model_name(name: str) -> str:
    """The name of the archive without its endings."""
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix) or name


def unpack(archive: Path, cache_dir: Path, report: Report) -> Path:
    """The model's folder. The same file, by path, size and time, is not unpacked again.

    Raises:
        ModelUnavailable: it is damaged, holds what it should not, or does not fit; in one line.
    """
    try:
        status = archive.stat()
    except OSError as error:
        raise ModelUnavailable(f"cannot read {archive}: {error.strerror}") from error
    key = hashlib.sha256(f"{archive.absolute()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache_dir.absolute() / "models" / f"archive-{slug(model_name(archive.name))}-{key}"
    made = make_once(target, lambda folder: _Unpacking(archive, folder, report).run(), report, resumable=False)
    return _model_folder(made)


def _model_folder(folder: Path) -> Path:
    inside = list(folder.iterdir())
    return _model_folder(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


class _Unpacking:
    def __init__(self, archive: Path, folder: Path, report: Report) -> None:
        self._archive = archive
        self._folder = folder
        self._report = report
        self._size_bytes = max(1, archive.stat().st_size)
        self._told = -_STEP
        self._links: dict[str, str] = {}
        self._files: set[str] = set()

    def run(self) -> None:
        check_space(self._folder, self._size_bytes, str(self._archive))
        budget_bytes = free_bytes(self._folder)
        with self._reading() as (stream, raw), tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, member in enumerate(tar):
                self._tell(raw)
                budget_bytes -= member.size
                if budget_bytes < 0:
                    raise self._bad(f"what is in it does not fit: {megabytes(free_bytes(self._folder))} are left on the disk of the cache")
                if number >= _MAX_MEMBERS:
                    raise self._bad(f"it has more than {_MAX_MEMBERS} entries")
                self._take(tar, member, raw)
            self._to_the_end(stream)
        for name, target in self._links.items():
            if target not in self._files:
                raise self._bad(f"{name} is a link to {target}, which is no file in it")
            self._parent(name)
            os.link(self._folder / target, self._folder / name)
        if not self._files:
            raise self._bad("there is nothing in it")

    @contextmanager
    def _reading(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """The tar's bytes, and the file that they come from. Reading to the end has gzip compare its checksum."""
        zipped = not self._archive.name.endswith(".tar")
        try:
            with self._archive.open("rb") as raw:
                stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
                yield stream, raw
        except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
            why = "it is cut off" if isinstance(error, EOFError) else " ".join(str(error).split())
            raise self._bad(f"{why}; copy it anew") from error

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, raw: IO[bytes]) -> None:
        name = self._checked(member.name)
        if member.isdir():
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        elif member.issym() or member.islnk():
            # A hard link names another member from the top, a symbolic one from where it is itself.
            base = PurePosixPath() if member.islnk() else PurePosixPath(name).parent
            self._links[name] = self._checked(os.path.normpath(base / member.linkname))
        elif member.isreg():
            # Python's own rules too: they know what a path becomes on this system.
            tarfile.data_filter(member, str(self._folder))
            self._write(tar, member, name, raw)
        elif name != ".":
            raise self._bad(f"{name} is neither a file nor a folder")

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, raw: IO[bytes]) -> None:
        self._parent(name)
        source = tar.extractfile(member)
        if source is None:
            raise self._bad(f"{name} cannot be read")
        left = member.size
        with (self._folder / name).open("wb") as sink:
            while left and (chunk := source.read(min(_CHUNK_BYTES, left))):
                sink.write(chunk)
                left -= len(chunk)
                self._tell(raw)
            os.fsync(sink.fileno())
        if left:
            raise EOFError
        self._files.add(name)

    def _checked(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
            raise self._bad(f"{name[:200]!r} leads out of it")
        return str(path)

    def _parent(self, name: str) -> None:
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)

    def _to_the_end(self, stream: IO[bytes]) -> None:
        left = _MAX_PADDING_BYTES
        while chunk := stream.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise self._bad("there is more behind its end")

    def _tell(self, raw: IO[bytes]) -> None:
        fraction = raw.tell() / self._size_bytes
        if fraction >= self._told + _STEP:
            self._told = min(1.0, fraction)
            self._report(PHASE, self._told)

    def _bad(self, why: str) -> ModelUnavailable:
        shutil.rmtree(self._folder, ignore_errors=True)
        return ModelUnavailable(f"cannot unpack {self._archive}: {why}")
