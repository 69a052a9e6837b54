"""A 7-8B shape with random weights on a GPU: FP16, INT8, FP8, bitsandbytes, and vLLM as it starts by itself, side by side.

    python -m benchmarks.precision_gpu TOKENIZER_FOLDER --out benchmarks/results/FILE.json

Speed and bytes do not depend on what the weights are, so they are made up where they lie; answers mean nothing. TOKENIZER_FOLDER is any
folder with a tokenizer, for instance the embedded model's. The servers run one at a time: each takes the GPU's memory for itself.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant, ledger, running
from benchmarks.result_file import keep
from benchmarks.side_by_side import LOADS, measure
from serving.errors import BenchmarkError

LLAMA_3_1_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "float16",
}
"""https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json, the shape alone."""
_DUMMY = ["--load-format", "dummy"]
CONTESTANTS = (
    Contestant("fp16", [*TOKENPORT, *_DUMMY]),
    Contestant("int8", [*TOKENPORT, *_DUMMY, "--quantization", "int8"]),
    Contestant("fp8", [*TOKENPORT, *_DUMMY, "--quantization", "fp8_per_channel"]),
    Contestant("bitsandbytes", [*TOKENPORT, *_DUMMY, "--quantization", "bitsandbytes"]),
    Contestant("vllm defaults", [*VLLM, *_DUMMY], BARE),
)


def shape_folder(folder: Path, tokenizer: Path) -> Path:
    """A model folder without weights."""
    (folder / "config.json").write_text(json.dumps(LLAMA_3_1_8B))
    for file in (*tokenizer.glob("tokenizer*"), *tokenizer.glob("*.jinja")):
        shutil.copyfile(file, folder / file.name)
    return folder


def run(model: str, rounds: int, log: Path) -> Iterator[dict[str, Any]]:
    """One row for each server that starts, each that does not, and each measurement. The first round warms up and is left out."""
    for contestant in CONTESTANTS:
        try:
            with running(contestant, model, log) as server:
                yield {"contestant": contestant.name, "start_s": server.start_s, "ledger": ledger(server.url)}
                for number in range(rounds + 1):
                    for load in LOADS:
                        measured = asyncio.run(measure(server.url, load))
                        if number:
                            yield {"contestant": contestant.name, "round": number, "load": load.name, **measured}
        except (BenchmarkError, RuntimeError) as error:
            yield {"contestant": contestant.name, "failed": str(error)}


def medians(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Tokens a second by contestant and load."""
    keys = dict.fromkeys((row["contestant"], row["load"]) for row in rows if "load" in row)
    table: dict[str, dict[str, float]] = {}
    for name, load in keys:
        speeds = [row["tokens_per_s"] for row in rows if (row["contestant"], row.get("load")) == (name, load)]
        table.setdefault(name, {})[load] = statistics.median(speeds)
    return table


def main() -> int:
    """Measure and write the file; on a machine without a GPU say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="a folder with a tokenizer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("precision-gpu.log"), help="where the servers' output goes")
    options = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        print(
            "precision_gpu: nothing measured: no NVIDIA driver here (nvidia-smi is missing). Run it where there is a GPU.", file=sys.stderr
        )
        return 1
    command = f"python -m benchmarks.precision_gpu TOKENIZER_FOLDER --rounds {options.rounds}"
    with tempfile.TemporaryDirectory() as folder:
        model = str(shape_folder(Path(folder), options.tokenizer))
        head = {"schema_version": 1, "command": command, "shape": LLAMA_3_1_8B}
        keep(options.out, head, run(model, options.rounds, options.log), medians)
    return 0


if __name__ == "__main__":
    sys.exit(main())
