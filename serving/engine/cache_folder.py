"""A folder in the cache that is either whole or not there, made by one process at a time of all that share the cache.

Steps: it is there, done; wait for the lock; fill a hidden folder beside it; rename that into place. What an interrupted process left is
taken up again or thrown away, as the caller says. Knows nothing of what goes in.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from serving.engine.interface import Report
from serving.errors import ModelUnavailable

_LOCK_DEADLINE_S = 3600.0
"""SageMaker gives a container no longer to become healthy."""
_LOOK_S = 0.5
_MAX_SLUG_CHARS = 64
_RESERVE_BYTES = 200_000_000
"""Left free on the disk: others write there too."""


def make_once(target: Path, fill: Callable[[Path], None], report: Report, *, resumable: bool) -> Path:
    """`target`, made by `fill(folder)` if it is not there. With `resumable` the folder may hold what an earlier call has written.

    Raises:
        ModelUnavailable: `fill` does; or the cache cannot be written, is full, or was locked for too long.
    """
    if target.is_dir():
        return target
    work = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(f".{target.name}.lock"), report, _LOCK_DEADLINE_S, "end it, or set another TOKENPORT_CACHE_DIR"):
            if target.is_dir():
                return target
            if not resumable:
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(exist_ok=True)
            fill(work)
            sync(work)
            work.rename(target)
            sync(target.parent)
    except OSError as error:
        raise ModelUnavailable(_told(error, target.parent)) from error
    return target


def slug(name: str) -> str:
    """`name` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:_MAX_SLUG_CHARS] or "model"


def free_bytes(folder: Path) -> int:
    """What may be written on the disk of `folder`."""
    return max(0, shutil.disk_usage(folder).free - _RESERVE_BYTES)


def check_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise ModelUnavailable unless `needed_bytes` fit on the disk of `folder`, with both numbers."""
    if (has_bytes := free_bytes(folder)) < needed_bytes:
        told = f"{what} needs {megabytes(needed_bytes)} and {folder} has {megabytes(has_bytes)} to spare"
        raise ModelUnavailable(f"disk full: {told}; free some, or set another TOKENPORT_CACHE_DIR")


def megabytes(size_bytes: int) -> str:
    """`size_bytes` for a person."""
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes < 10e9 else f"{size_bytes / 1e9:.1f} GB"


@contextmanager
def held(path: Path, report: Report, deadline_s: float, advice: str) -> Iterator[None]:
    """Hold the lock at `path`, which one process of all that share the cache can. Raises `ModelUnavailable` after `deadline_s`."""
    lock = FileLock(path)
    give_up = time.monotonic() + deadline_s
    while True:
        try:
            lock.acquire(timeout=_LOOK_S)
            break
        except Timeout:
            if time.monotonic() > give_up:
                raise ModelUnavailable(f"another process has held {path} for {deadline_s:.0f} s: {advice}") from None
            report("waiting for another process", None)
    try:
        yield
    finally:
        lock.release()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full: {folder}; free some, or set another TOKENPORT_CACHE_DIR"
    return f"cannot write to the cache folder {folder} ({error.strerror or error}): make it writable, or set another TOKENPORT_CACHE_DIR"
