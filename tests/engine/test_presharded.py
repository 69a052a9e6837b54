"""A small model with 3 heads over two ranks: padded, split, written, and read again by vLLM's classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import ROOT

pytestmark = pytest.mark.engine

HEAD = 32
HIDDEN = 3 * HEAD


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, out = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("out")
    shape: dict[str, Any] = {"hidden_size": HIDDEN, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": HEAD}
    config = LlamaConfig(**shape, intermediate_size=128, num_hidden_layers=2, vocab_size=256, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    command = [sys.executable, "-m", "tests.engine.presharded_facts", str(folder), str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found | {"out": out}


def test_each_rank_reads_back_what_it_would_have_loaded_from_the_whole(facts: dict[str, Any]) -> None:
    assert facts["same"] == [True, True]


def test_the_ranks_have_vllms_names_and_padded_shapes(facts: dict[str, Any]) -> None:
    # Two of the four query heads that three became, and the one KV head, which both ranks hold.
    assert facts["shapes"]["model.layers.0.self_attn.qkv_proj.weight"] == [(2 + 1 + 1) * HEAD, HIDDEN]
    assert facts["shapes"]["model.layers.0.self_attn.o_proj.weight"] == [HIDDEN, 2 * HEAD]
    assert facts["zero_columns"] == HEAD


def test_a_tied_embedding_is_written_once(facts: dict[str, Any]) -> None:
    assert "model.embed_tokens.weight" in facts["shapes"]
    assert "lm_head.weight" not in facts["shapes"]


def test_files_that_do_not_hold_what_the_model_has_are_refused_by_name(facts: dict[str, Any]) -> None:
    assert f"lacks {facts['name']}" in facts["lacks"]
    assert f"{facts['name']} is torch.bfloat16 (3,)" in facts["other_shape"]


def test_no_half_written_rank_is_left_behind(facts: dict[str, Any]) -> None:
    out: Path = facts["out"]
    assert sorted(folder.name for folder in out.iterdir()) == ["rank-0-of-2", "rank-1-of-2"]
