"""Writes the ranks of `tokenport prepare --tensor-parallel-size N`. It resumes: a rank's folder gets its name when it is whole.

Steps: what the engine would be told for so many ranks, padding included; a child process that writes the ranks still missing (`writer.py`);
their files entered into the record; config.json with the padded sizes, the tokenizer, the manifest.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.engine.child_process import run_module
from serving.engine.devices import as_gpu
from serving.engine.environment import engine_version, runs_on_cpu
from serving.engine.preflight import read_config
from serving.engine.prepare.plan import Record, check_space, write_json
from serving.engine.prepare.source import Source, other_files
from serving.engine.prepare.writing import entry_of, seal
from serving.engine.presharded.manifest import Presharded, rank_folder
from serving.engine.settle import settle
from serving.errors import ModelUnavailable
from serving.planner.model_shape import text_config

_DEADLINE_S = 24 * 3600.0
_ENOUGH_BYTES = 2**60


def split(source: Path, record: Record, size: int, dtype: str, report: Callable[[str], None], head: Mapping[str, Any]) -> Path:
    """Write `source`, a 16-bit or INT8 checkpoint, for `size` ranks into the record's folder. Returns the manifest.

    `report` hears of each rank; `head` goes into the manifest.

    Raises:
        SettingsError: the model cannot be split so.
        ModelUnavailable: there is no room, or vLLM cannot load the model.
    """
    # The GPUs it will run on need not be here.
    elsewhere = [as_gpu("a GPU elsewhere", _ENOUGH_BYTES)] * size
    settled = settle({"tensor_parallel_size": size, "dtype": dtype}, str(source), on_cpu=runs_on_cpu(), visible=lambda: elsewhere)
    missing = [rank for rank in range(size) if not (record.folder / rank_folder(rank, size)).is_dir()]
    weights_bytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    check_space(record.folder, weights_bytes * len(missing) // size)
    record.save()
    if missing:
        _write_ranks(source, record.folder, settled, missing, report)
    for rank in range(size):
        for file in sorted((record.folder / rank_folder(rank, size)).iterdir()):
            name = file.relative_to(record.folder).as_posix()
            record.finished.setdefault(name, entry_of(file) | {"layers": []})
    record.save()
    for file in other_files(source):
        shutil.copyfile(file, record.folder / file.name)
    config = read_config(source) | settled.get("hf_overrides", {})
    write_json(record.folder / "config.json", config)
    presharded = Presharded(size, dtype, _quantization(config), engine_version())
    return seal(record, dict(head) | presharded.to_manifest())


def dtype_of(source: Source) -> str:
    """The 16-bit type of a checkpoint; one of 32 bits becomes BF16, which has its range."""
    found = str(text_config(source.config).get("dtype") or text_config(source.config).get("torch_dtype"))
    return found if found in ("bfloat16", "float16") else "bfloat16"


def _quantization(config: Mapping[str, Any]) -> str | None:
    """The name in our settings of what the checkpoint is already."""
    return "int8" if config.get("quantization_config") else None


def _write_ranks(source: Path, out: Path, engine: Mapping[str, Any], ranks: list[int], report: Callable[[str], None]) -> None:
    def on_line(line: str) -> bool:
        is_ours = line.startswith('{"rank"')
        if is_ours:
            report(f"rank {json.loads(line)['rank']} of {engine['tensor_parallel_size']} is written")
        return is_ours

    spec = {"model": str(source), "out": str(out), "engine": engine, "ranks": ranks}
    why = run_module("serving.engine.presharded.writer", spec, deadline_s=_DEADLINE_S, on_line=on_line)
    if why is not None:
        raise ModelUnavailable(f"{source} cannot be split: {why}")
