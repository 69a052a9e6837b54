"""What a pre-sharded checkpoint says of itself in its manifest, and whether that is what the settings ask for.

Such a folder holds config.json and the tokenizer as any model's, and for each rank a folder with that rank's parameters as vLLM names them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelUnavailable, SettingsError

MANIFEST = "tokenport-manifest.json"
LOAD_FORMAT = "tokenport_ranks"
"""The name that our loader has in vLLM."""
_KEY = "presharded"
_AUTO = ("auto", None)
_UNSET: dict[str, Any] = {"pipeline_parallel_size": 1, "enable_expert_parallel": False, "hf_overrides": {}, "quantization_config": {}}
"""Settings that decide what a rank holds, each with the one value that models are prepared for."""


@dataclass(frozen=True)
class Presharded:
    """How the weights were split. `dtype` is torch's name for the 16-bit type; `quantization` is None or `int8`; parameters are named and
    shaped as in the vLLM of `engine_version`."""

    tensor_parallel_size: int
    dtype: str
    quantization: str | None
    engine_version: str

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's entry."""
        return {_KEY: asdict(self)}


def rank_folder(rank: int, size: int) -> str:
    """The name of the folder with one rank's weights."""
    return f"rank-{rank}-of-{size}"


def read_presharded(folder: Path) -> Presharded | None:
    """What the folder's manifest says; None where it is no pre-sharded checkpoint.

    Raises:
        ModelUnavailable: the manifest is damaged, or ranks are missing.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entry = content.get(_KEY)
        found = Presharded(**entry) if entry is not None else None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{file} is damaged ({error}): prepare the model anew") from error
    if found is None:
        return None
    names = [rank_folder(rank, found.tensor_parallel_size) for rank in range(found.tensor_parallel_size)]
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise ModelUnavailable(f"{folder} lacks {missing[0]}, which its {MANIFEST} promises: copy the model anew")
    return found


def arguments_for(folder: Path, engine: Mapping[str, Any], engine_version: str) -> Mapping[str, Any]:
    """`engine`, vLLM's arguments that the user set, as the checkpoint in `folder` needs them: the same unless it is pre-sharded. If there
    is no such folder the model is a hub's. Raises as `read_presharded` and `presharded_arguments`."""
    found = read_presharded(folder)
    return engine if found is None else presharded_arguments(found, engine, engine_version)


def presharded_arguments(found: Presharded, engine: Mapping[str, Any], engine_version: str) -> dict[str, Any]:
    """`engine`, vLLM's arguments that the user set, with what loads this checkpoint.

    Raises:
        SettingsError: the settings or the engine ask for something else than was prepared; the differences are named.
    """
    size = found.tensor_parallel_size
    differences = []
    if engine.get("tensor_parallel_size", 1) not in (size, "auto"):
        differences.append(f"tensor_parallel_size is {engine.get('tensor_parallel_size', 1)} and was {size}")
    for name, prepared in (("dtype", found.dtype), ("quantization", found.quantization)):
        if engine.get(name) not in (*_AUTO, prepared):
            differences.append(f"{name} is {engine[name]} and was {prepared}")
    differences += [f"{name} is set and was not" for name, unset in _UNSET.items() if engine.get(name, unset) not in (None, unset)]
    if engine.get("load_format", "auto") != "auto":
        differences.append(f"load_format={engine['load_format']} reads other files")
    if engine_version != found.engine_version:
        differences.append(f"vLLM is {engine_version} and was {found.engine_version}")
    if differences:
        raise SettingsError(f"the model was split for other settings: {'; '.join(differences)}. Change them, or prepare it anew")
    rest = {name: value for name, value in engine.items() if name not in ("quantization", "load_format")}
    return {**rest, "tensor_parallel_size": size, "dtype": found.dtype, "load_format": LOAD_FORMAT}
