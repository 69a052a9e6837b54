"""What each way to quantise costs in quality, on one model: perplexity and KL divergence against its 16-bit checkpoint.

    python -m benchmarks.quality MODEL_FOLDER --out benchmarks/results/FILE.json

Each variant is made by `tokenport prepare ... --quality`, or loaded so by the engine; the figures are what the command wrote. FP32 is there
to show how much is the 16 bit's own rounding. The file keeps the layers that lose most, the machine and the versions; what it has already
from the same machine is not measured again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine.facts import machine

# Words for `tokenport prepare`, or arguments that the engine loads the checkpoint itself with.
VARIANTS: dict[str, list[str] | dict[str, str]] = {
    "int8 prepared": ["--quantization", "int8"],
    "int8 while loading": {"quantization": "int8"},
    "int8 prepared, smoothed": ["--quantization", "int8", "--smooth"],
    "float32": {"dtype": "float32"},
    "nf4 prepared": ["--quantization", "nf4"],
    "llm-int8 prepared": ["--quantization", "llm-int8"],
}
_DEADLINE_S = 3600.0
_NUM_WORST = 10


def prepared(model: str, words: list[str], work: Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Prepare and measure; what is kept of the manifest. `environ` None: this process's."""
    out = work / "out"
    command = [sys.executable, "-m", "serving", "prepare", model, str(out), *words, "--quality"]
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=_DEADLINE_S, stdout=sys.stderr, env=environ)
    manifest = json.loads((out / "tokenport-manifest.json").read_text())
    layers = [layer for entry in manifest["finished"].values() for layer in entry["layers"]]
    return {
        "command": f"tokenport prepare MODEL_FOLDER OUT {' '.join(words)} --quality",
        "wall_s": round(time.monotonic() - started, 1),
        "weights_bytes": sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".safetensors")),
        "quality": manifest["quality"],
        "quantized_layers": manifest["quantized_layers"],
        "layers_that_lose_most": sorted(layers, key=lambda layer: -layer["relative_error"])[:_NUM_WORST],
    }


def loaded(model: str, engine: dict[str, str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Measure the 16-bit checkpoint as the engine loads it with these arguments. `environ` None: this process's."""
    words = ["-m", "serving.engine.prepare.quality", model, model, "--engine", json.dumps(engine)]
    command = ["env", "VLLM_LOGGING_LEVEL=ERROR", "HF_HUB_OFFLINE=1", sys.executable, *words]
    answer = subprocess.run(command, check=True, timeout=_DEADLINE_S, stdout=subprocess.PIPE, text=True, env=environ)
    return {"engine": engine, "quality": json.loads(answer.stdout)}


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a 16-bit checkpoint")
    parser.add_argument("--without", nargs="*", default=[], metavar="VARIANT", help="leave these out")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "schema_version": 1,
        "command": "python -m benchmarks.quality MODEL_FOLDER" + (f" --without {options.without}" if options.without else ""),
        "model": Path(options.model).name,
        "machine": machine(),
        "variants": {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.exists() and (found := json.loads(options.out.read_text()))["machine"] == result["machine"]:
        result["variants"] = {name: row for name, row in found["variants"].items() if "failed" not in row}
    for name, how in VARIANTS.items():
        if name in options.without or name in result["variants"]:
            continue
        with tempfile.TemporaryDirectory(prefix="tokenport-") as work:
            try:
                row = prepared(options.model, how, Path(work)) if isinstance(how, list) else loaded(options.model, how)
            except subprocess.CalledProcessError as error:
                # Said why on standard error. The others are still worth having; the exit code tells.
                row = {"failed": f"exit status {error.returncode}"}
        # Written after every variant, so that stopping early loses nothing.
        result["variants"][name] = row
        result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if any("failed" in row for row in result["variants"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
