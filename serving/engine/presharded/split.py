"""Writes the ranks of `tokenport prepare --tensor-parallel-size N`. It resumes: a rank's folder gets its name when it is whole.

Steps: what the engine would be told for so many ranks, padding included; a child process that writes the ranks still missing (`writer.py`);
their files entered into the record; config.json with the padded sizes, the tokenizer, the manifest.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.engine.child_process import run_child
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
_NUM_LAST_LINES = 40


def split(source: Path, record: Record, size: int, dtype: str, report: Callable[[str], None], head: Mapping[str, Any]) -> Path:
    """Write `source`, a 16-bit or INT8 checkpoint, for `size` ranks into the record's folder. Returns the manifest.

    `report` hears of each rank; `head` goes into the manifest.

    Raises:
        SettingsError: the model cannot be split so.
        ModelUnavailable: there is no room, or vLLM cannot load the model.
    """
    # The GPUs it will run on need not be here.
    settled = settle(
        {"tensor_parallel_size": size, "dtype": dtype}, str(source), on_cpu=runs_on_cpu(), visible=lambda: [_ENOUGH_BYTES] * size
    )
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
    last: deque[str] = deque(maxlen=_NUM_LAST_LINES)

    def on_line(line: str) -> None:
        if line.startswith('{"rank"'):
            report(f"rank {json.loads(line)['rank']} of {engine['tensor_parallel_size']} is written")
        elif line.strip():
            last.append(line.strip())

    with tempfile.TemporaryDirectory(prefix="tokenport-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps({"model": str(source), "out": str(out), "engine": engine, "ranks": ranks}), encoding="utf-8")
        command = [sys.executable, "-m", "serving.engine.presharded.writer", str(spec)]
        root = Path(__file__).parents[3]
        try:
            status = run_child(command, cwd=root, deadline_s=_DEADLINE_S, on_line=on_line, on_silence=lambda: None)
        except subprocess.TimeoutExpired:
            raise ModelUnavailable(f"{source} was not split within {_DEADLINE_S / 3600:.0f} h") from None
    if status != 0:
        why = (
            f"ended by signal {-status}" + (", probably out of memory" if status == -9 else "")
            if status < 0
            else last[-1][:500]
            if last
            else ""
        )
        raise ModelUnavailable(f"{source} cannot be split: {why or f'exit status {status}'}")
