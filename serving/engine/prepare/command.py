"""`tokenport prepare MODEL OUT`, step by step.

Steps: find and check the source; INT8 written here tensor by tensor (`writing.py`), or bitsandbytes through transformers; split for ranks
(`presharded/`); the manifest; quality and compiled caches if asked for; a report for people on standard output, progress on standard error.
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.engine.environment import runs_on_cpu
from serving.engine.prepare.layers import TRIED, Layers, choose_layers
from serving.engine.prepare.options import Options, parse
from serving.engine.prepare.plan import MANIFEST, Record, lock_output, open_output, plan_shards, write_json
from serving.engine.prepare.progress import progress
from serving.engine.prepare.quality import Runtime, Subject, compare
from serving.engine.prepare.smoothing import FACTORS, SmoothedInt8, check_known, find_factors
from serving.engine.prepare.source import Source, find_folder, read_source
from serving.engine.prepare.transform import Int8, quantization_config
from serving.engine.prepare.writing import check_finished, finish, write_shards
from serving.engine.presharded.split import dtype_of, split
from serving.engine.shipped_cache import FOLDER
from serving.engine.warm import warm
from serving.errors import ModelUnavailable, SettingsError
from serving.settings import Settings

_NUM_WORST = 10
_NUM_KEPT_SHOWN = 12
_WHOLE = ".whole"
"""In OUT, the quantised checkpoint before it is split; removed when that is done."""


def prepare(words: Sequence[str], settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the command and return the exit code. Of `settings` those count that say how a model is fetched.

    Raises:
        StartError: in one line, with what would be right.
    """
    options = parse(words)
    if options.quantization in ("llm-int8", "nf4"):
        from serving.engine.prepare.bitsandbytes import check_installed

        check_installed()
    folder, name = find_folder(options.model, settings, environ, _told_once("model: "))
    if options.out.resolve() == folder.resolve():
        raise SettingsError(f"{options.out} is the source itself: name another folder to write to")
    source = read_source(folder, name, may_be_quantized=options.quantization is None)
    identity = {"name": source.name, "identity": source.identity}
    open_output(options.out, options.settings, identity)  # refused before anything is written
    with lock_output(options.out):
        record = open_output(options.out, options.settings, identity)
        if (options.out / MANIFEST).exists():
            print(f"{options.out} is finished already; comparing it with its {MANIFEST}")
            check_finished(options.out)
        else:
            try:
                _write(options, source, record)
            except OSError as error:
                raise ModelUnavailable(f"cannot prepare {options.out}: {error}; mend that, and the same command goes on") from error
        if options.quality:
            _measure(options, source)
    _show(options.out, source)
    if options.warm:
        words = [] if options.tensor_parallel_size is None else ["--tensor-parallel-size", str(options.tensor_parallel_size)]
        print(f"  compiled caches: {warm(options.out, settings.cache_dir, words) / 1e6:.1f} MB in {FOLDER}")
    return 0


def _write(options: Options, source: Source, record: Record) -> None:
    if options.tensor_parallel_size is None:
        _write_whole(options, source, record)
        return
    record.save()
    head: dict[str, Any] = {"tokenport": version("tokenport"), "quantized_layers": 0, "kept": {}}
    whole = source.folder
    if options.quantization is not None:
        whole = options.out / _WHOLE
        part = open_output(whole, options.settings, record.source)
        if not (whole / MANIFEST).exists():
            whole.mkdir(exist_ok=True)
            _write_whole(dataclasses.replace(options, out=whole), source, part)
        quantized = _manifest(whole)
        head |= {name: quantized[name] for name in ("quantized_layers", "kept")} | {"whole": quantized["finished"]}
    dtype = options.dtype or dtype_of(source)
    split(whole, record, options.tensor_parallel_size, dtype, lambda told: print(told, file=sys.stderr, flush=True), head)
    shutil.rmtree(options.out / _WHOLE, ignore_errors=True)


def _write_whole(options: Options, source: Source, record: Record) -> None:
    head = {"tokenport": version("tokenport")}
    if options.quantization in ("llm-int8", "nf4"):
        from serving.engine.prepare.bitsandbytes import write_through_transformers

        write_through_transformers(options.quantization, source, record, head)
        return
    layers = choose_layers(source, options.ignore)
    if layers.architecture not in TRIED:
        known = ", ".join(sorted(TRIED))
        print(f"note: {layers.architecture} is none of {known}, whose layers are known; load it once before you rely on it")
    transform = _transform(options, source, layers, record)
    shards = plan_shards(list(source.tensors.values()), transform)
    total_bytes = sum(tensor.num_bytes for tensor in source.tensors.values())
    with progress(total_bytes, "prepare", sys.stderr) as advance:
        num_found = write_shards(shards, transform, record, advance)
    if num_found:
        print(f"{num_found} of {len(shards)} files were there already")
    (options.out / FACTORS).unlink(missing_ok=True)
    config = source.config | {"quantization_config": quantization_config(layers)}
    finish(record, shards, source, config, head | {"quantized_layers": len(layers.quantized), "kept": dict(layers.kept)})


def _transform(options: Options, source: Source, layers: Layers, record: Record) -> Int8:
    """What rounds; the record is there from here on."""
    if options.smooth is None:
        record.save()
        return Int8(layers)
    check_known(source)
    record.save()
    if not record.finished:
        (options.out / FACTORS).unlink(missing_ok=True)
    print("smoothing: reading a text with the 16-bit model, which needs memory for all of it", file=sys.stderr, flush=True)
    return SmoothedInt8(layers, source, find_factors(source, layers, options.smooth, options.out))


def _measure(options: Options, source: Source) -> None:
    """Add the quality to the manifest, unless it is there."""
    manifest = _manifest(options.out)
    if "quality" in manifest:
        return
    runtime: Runtime = "transformers" if options.quantization != "int8" and runs_on_cpu() else "vllm"
    report = _told_once("quality: reading the text with the ")
    quality = compare(Subject(source.folder, {}, runtime), Subject(options.out, {}, runtime), options.out.parent, report)
    write_json(options.out / MANIFEST, manifest | {"quality": asdict(quality)})


def _told_once(prefix: str) -> Callable[[str, float | None], None]:
    """Hears of a step again and again, and prints it the first time."""
    said: set[str] = set()

    def report(step: str, _fraction: float | None) -> None:
        if step not in said:
            said.add(step)
            print(prefix + step, file=sys.stderr, flush=True)

    return report


def _show(out: Path, source: Source) -> None:
    manifest = _manifest(out)
    before = sum(tensor.num_bytes for tensor in source.tensors.values())
    after = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".safetensors"))
    settings, num_layers = manifest["settings"], manifest["quantized_layers"]
    made = [f"{num_layers} layers in {settings['quantization']}"] if settings["quantization"] else []
    made += [f"split for {size} ranks"] if (size := settings.get("tensor_parallel_size")) else []
    print(f"{out}: {', '.join(made)}, {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB")
    kept = manifest["kept"]
    for layer, reason in list(kept.items())[:_NUM_KEPT_SHOWN]:
        print(f"  kept: {layer}: {reason}")
    if len(kept) > _NUM_KEPT_SHOWN:
        print(f"  kept: {len(kept) - _NUM_KEPT_SHOWN} more, see {MANIFEST}")
    finished = manifest.get("whole", manifest["finished"])
    layers = sorted((layer for entry in finished.values() for layer in entry["layers"]), key=lambda layer: -layer["relative_error"])
    if layers:
        print("  layers that lose most (relative error of the weight; largest weight over root mean square):")
    for layer in layers[:_NUM_WORST]:
        print(f"    {layer['relative_error']:8.3%}  {layer['outlier_ratio']:6.1f}  {layer['layer']}")
    if quality := manifest.get("quality"):
        print(f"  quality: {json.dumps(quality)}")


def _manifest(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    return content
