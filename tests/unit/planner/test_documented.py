"""The table of docs/multi-node.md against the arithmetic."""

import re
from pathlib import Path

import pytest

from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Precision, plan, unsplit

DOCUMENT = Path(__file__).parents[3] / "docs" / "multi-node.md"
MODELS = {
    "SmolLM2-135M": ModelShape("llama", 30, 576, 9, 3, 64, 1536, 49152, 0, 8192, True),
    "Qwen2.5-0.5B": ModelShape("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 0, 32768, True),
    "Qwen2.5-7B": ModelShape("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 0, 32768, False),
    "Qwen2.5-14B": ModelShape("qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 0, 32768, False),
    "Llama-3.1-8B": ModelShape("llama", 32, 4096, 32, 8, 128, 14336, 128256, 0, 131072, False),
    "Phi-3-mini": ModelShape("phi3", 32, 3072, 32, 32, 96, 8192, 32064, 0, 4096, False),
}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \S+ \| \d+ \| \d+ → ", line)
]


def test_every_model_is_in_the_table():
    assert {row[0] for row in ROWS} == MODELS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} over {row[1]}")
def test_the_table_says_what_the_plan_is_and_costs(row):
    shape, precision = MODELS[row[0]], Precision()
    sharding = plan(shape, int(row[1]), num_tokens=shape.max_context)
    weights, kv = sharding.added_bytes(precision)
    assert row[2:] == [
        f"{shape.num_heads} → {sharding.num_heads}",
        f"{shape.num_kv_heads} → {sharding.num_kv_slots}",
        f"{weights / 2**20:.0f} MiB ({100 * weights / unsplit(shape).weight_bytes(precision):.1f} %)",
        f"{kv / 1024:.1f} KiB ({100 * kv / unsplit(shape).kv_bytes_per_token(precision):.0f} %)",
    ]
