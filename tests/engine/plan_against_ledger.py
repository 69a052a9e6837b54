"""Every plan of the tests beside what the ledger measured, and the steps that the planner's points for CPUs are made of, as a file.

    python -m tests.engine.plan_against_ledger --out benchmarks/results/FILE.json

Architectures are tiny and run one after the other in this process; each full step has a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.result_file import Rows, keep

_SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}
_NARROW = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
_WIDE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
_QWEN3 = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8}
_TIED = {"tie_word_embeddings": True, "max_position_embeddings": 8192}
_FULL = {"max_num_batched_tokens": 2048, "max_num_seqs": 128}
STEPS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", _SMOLLM2 | _TIED | {"vocab_size": 49152}, _FULL),
    ("llama", _NARROW | {"vocab_size": 32000, "max_position_embeddings": 8192}, _FULL),
    ("llama", _NARROW | {"vocab_size": 32000, "max_position_embeddings": 8192}, {"max_num_batched_tokens": 512, "max_num_seqs": 32}),
    ("llama", _NARROW | {"vocab_size": 32000, "max_position_embeddings": 8192}, _FULL | {"quantization": "int8"}),
    ("llama", _NARROW | {"vocab_size": 32000, "max_position_embeddings": 8192}, _FULL | {"tensor_parallel_size": 2}),
    ("llama", _WIDE | _TIED | {"vocab_size": 128256}, _FULL),
    ("qwen3", _QWEN3 | _TIED | {"head_dim": 128, "vocab_size": 151936}, _FULL),
]
_STEP_DEADLINE_S = 400.0
_PARTS = ("weights", "activation_peak", "non_torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    head = {"command": f"python -m tests.engine.plan_against_ledger --out {options.out}"}
    keep(options.out, head, rows(), _summary)


def rows() -> Iterator[dict[str, Any]]:
    """A row for each architecture and format, then one for each step."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from tests.engine.tiny_models import INT8, MODELS

    for model_type, quantization in [*((name, None) for name in MODELS), *((name, "int8") for name in INT8)]:
        yield _architecture(model_type, quantization)
    for model_type, changes, engine in STEPS:
        yield _step(model_type, changes, engine)


def _architecture(model_type: str, quantization: str | None) -> dict[str, Any]:
    from tests.engine.tiny_models import CONTEXT, measured, planned, write_config

    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), model_type)
        plan, found = planned(Path(folder), quantization=quantization), measured(Path(folder), quantization=quantization)
    return {
        "kind": "architecture",
        "model_type": model_type,
        "quantization": quantization,
        "weights_bytes": {"planned": round(plan.per_gpu.weights_bytes.estimate), "measured": found.weights_bytes},
        "kv_bytes_per_sequence": {"planned": plan.kv_bytes_per_token * CONTEXT, "measured": round(found.kv_bytes_per_sequence)},
    }


def _step(model_type: str, changes: dict[str, Any], engine: dict[str, Any]) -> dict[str, Any]:
    from tests.engine.tiny_models import planned, write_config

    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), model_type, **changes)
        num_ranks = engine.get("tensor_parallel_size", 1)
        plan = planned(Path(folder), num_ranks, **{"context": 2048, **engine}).per_gpu
        words = [sys.executable, "-m", "tests.engine.step_facts", folder, json.dumps(engine)]
        environ = {name: value for name, value in os.environ.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
        answer = subprocess.run(words, env=environ, check=True, capture_output=True, text=True, timeout=_STEP_DEADLINE_S)
    ranks = [_of_rank(rank) for rank in json.loads(answer.stdout.splitlines()[-1])]
    parts = {
        f"{part}_bytes": {"planned": getattr(plan, f"{part}_bytes").to_json(), "measured": max(rank[part] for rank in ranks)}
        for part in _PARTS
    }
    return {"kind": "step", "model_type": model_type, "config": changes, "engine": engine, **parts}


def _of_rank(ledger: dict[str, Any]) -> dict[str, int]:
    weights, held = sum(ledger["weights_by_dtype"].values()), ledger["activation_held_bytes"]
    rest = ledger["process_bytes"] - weights - ledger["kv_cache_bytes"] - held
    return {"weights": weights, "activation_peak": ledger["activation_peak_bytes"], "non_torch": rest}


def _summary(rows: Rows) -> dict[str, Any]:
    """How far the weights were off at most, how many caches were not what was planned, and for how many steps the plan's ends held."""
    architectures, steps = ([row for row in rows if row["kind"] == kind] for kind in ("architecture", "step"))
    off = [abs(row["weights_bytes"]["planned"] / row["weights_bytes"]["measured"] - 1) for row in architectures]
    wrong = [row["model_type"] for row in architectures if len(set(row["kv_bytes_per_sequence"].values())) > 1]
    within = {
        part: sum(row[part]["planned"]["low"] <= row[part]["measured"] <= row[part]["planned"]["high"] for row in steps)
        for part in ("activation_peak_bytes", "non_torch_bytes")
    }
    return {
        "num_architectures": len(architectures),
        "weights_off_at_most": round(max(off), 5),
        "kv_cache_not_exact": wrong,
        "num_steps": len(steps),
        "steps_within_the_ends": within,
    }


if __name__ == "__main__":
    main()
