"""A KV cache of so many tokens or sequences: what vLLM plans for several layouts, and what a started engine has and measures."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

from serving.engine.kv_cache_size import wish_config
from serving.engine.plugin import register
from serving.errors import StartError

pytestmark = pytest.mark.engine

GIB = 2**30
MAX_MODEL_LEN = 1000  # no multiple of a block
BLOCK = 16
LAYERS, HIDDEN, MLP, VOCABULARY = 3, 128, 256, 512


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    shape = {"num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": MLP, "vocab_size": VOCABULARY}
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2, architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def config(model) -> Any:
    args = EngineArgs(model=model, max_model_len=MAX_MODEL_LEN, dtype="bfloat16", enforce_eager=True, skip_tokenizer_init=True)
    return args.create_engine_config()


def full(heads: int = 2) -> FullAttentionSpec:
    return FullAttentionSpec(block_size=BLOCK, num_kv_heads=heads, head_size=32, dtype=torch.bfloat16)


def windowed() -> SlidingWindowSpec:
    return SlidingWindowSpec(block_size=BLOCK, num_kv_heads=2, head_size=32, dtype=torch.bfloat16, sliding_window=256)


WORKERS = {
    "one group": ("LBHNC", [{"a": full(), "b": full(), "c": full()}]),
    "full and sliding": ("LBHNC", [{"a": full(), "b": windowed(), "c": full(), "d": windowed()}]),
    "pages of two sizes": ("BLHNC", [{"a": full(2), "b": full(4)}]),
    "two stages": ("LBHNC", [{"a": full(), "b": full()}, {"c": full()}]),
}


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("tokens", [MAX_MODEL_LEN, 5000, 5001])
def test_vllm_plans_for_the_tokens_asked_for_and_hardly_more(config, name, tokens):
    assert tokens <= capacity(config, name, wish_config(tokens, None))[0] < tokens + 3 * BLOCK


@pytest.mark.parametrize("name", WORKERS)
def test_vllm_plans_for_the_sequences_asked_for_and_hardly_more(config, name):
    assert 3 <= capacity(config, name, wish_config(None, 3))[1] < 3.1


def test_what_a_rank_has_not_is_refused_before_it_is_allocated(config):
    with pytest.raises(StartError, match=r"not enough memory for the KV cache: kv_cache_tokens=5000 needs .* GiB are free; set"):
        capacity(config, "one group", wish_config(5000, None), available_bytes=2**20)


def test_without_a_wish_the_plan_is_vllms(config):
    assert capacity(config, "one group", {}, available_bytes=2**22)[0] > 5000


def capacity(config: Any, name: str, additional: dict[str, int], available_bytes: int = GIB) -> tuple[int, float]:
    from vllm.v1.engine import core

    register()
    config.cache_config.kv_cache_layout, workers = WORKERS[name]
    config.additional_config = additional
    planned = core.get_kv_cache_configs(config, workers, [available_bytes] * len(workers))
    sizes = [sum({tensor.size for tensor in one.kv_cache_tensors}) for one in planned]
    assert all(size <= available_bytes for size in sizes)
    return get_kv_cache_capacity(config, planned[0])


ENGINE = """
import gc, json, os, sys
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
import torch
from vllm import LLM, SamplingParams
import vllm._custom_ops as operators

engine = LLM(sys.argv[1], load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, dtype="bfloat16", max_model_len=1000,
             gpu_memory_utilization=0.05, additional_config=json.loads(sys.argv[2]))
engine.generate([{"prompt_token_ids": [1]}], SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
measure = lambda: engine.collective_rpc("tokenport_memory")[0]
at_rest = measure()
engine.generate([{"prompt_token_ids": [1] * 900}] * 3, SamplingParams(max_tokens=2, detokenize=False), use_tqdm=False)
torch.ones(2**26)  # what a step might need for a moment: 256 MiB
worked = measure()
worker = engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
worker._tokenport_ledger.rest = None
weight, scale = torch.ones(256, 512, dtype=torch.int8).t().contiguous().t(), torch.ones(512)
packed = operators.create_onednn_scaled_mm(weight, scale, torch.bfloat16, True, False, 32)
with_int8 = measure()
del packed
gc.collect()
worker._tokenport_ledger.rest = None
config = engine.llm_engine.vllm_config.cache_config
print(json.dumps([at_rest, worked, with_int8, measure(), config.kv_cache_size_tokens]))
"""


def test_a_started_engine_has_what_was_asked_for_and_measures_itself(model):
    words = [sys.executable, "-c", ENGINE, model, json.dumps(wish_config(None, 3))]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr[-2000:]
    at_rest, worked, with_int8, without, vllms_tokens = json.loads(answer.stdout.splitlines()[-1])
    assert at_rest["kv_cache_tokens"] == vllms_tokens
    assert 3 <= at_rest["kv_cache_sequences"] < 3.3
    per_token = LAYERS * 2 * 2 * 32 * 2
    assert at_rest["kv_cache_bytes"] == pytest.approx(vllms_tokens * per_token, rel=0.05)
    # Attention, MLP, two norms a layer; embedding and head apart; the last norm. Beside them only the table of rotary embeddings.
    layer = HIDDEN * HIDDEN * 2 + HIDDEN * 64 * 2 + 3 * HIDDEN * MLP + 2 * HIDDEN
    model_bytes = 2 * (LAYERS * layer + 2 * VOCABULARY * HIDDEN + HIDDEN)
    assert model_bytes <= at_rest["weights_by_dtype"]["bfloat16"] < model_bytes + 2**18
    assert worked["weights_by_dtype"] == at_rest["weights_by_dtype"]
    assert worked["activation_peak_bytes"] > 2**27 > worked["activation_held_bytes"]
    assert at_rest["activation_peak_bytes"] < 2**27
    assert worked["process_bytes"] > sum(worked["weights_by_dtype"].values()) + worked["kv_cache_bytes"]
    # What oneDNN keeps of an INT8 layer counts for as long as the layer keeps it.
    assert with_int8["weights_by_dtype"]["int8"] == 256 * 512
    assert "int8" not in without["weights_by_dtype"]
