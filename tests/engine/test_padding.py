"""Padded models in the real engine: small ones of every architecture that can be padded, and SmolLM2 over two ranks."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch

from serving.engine.settle import settle
from tests.conftest import start_server

pytestmark = pytest.mark.engine

PROMPTS = [[5, 9, 200, 17, 3, 44, 350, 8, 8, 121], [77, 2, 300]]
SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 70,
    "vocab_size": 400,
    "max_position_embeddings": 256,
}
"""Over 4 ranks each KV head is copied to two, with 4 query heads in the place of 3, and the MLP is padded to 128."""
WHOLE_GROUPS = {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 288}
"""Over 2 ranks a fourth KV head comes in, with 3 query heads."""
MODELS = {
    "llama": ({"attention_bias": True, "mlp_bias": True}, 4),
    "qwen2": ({"hidden_size": 192, "head_dim": None}, 4),
    "qwen3": ({}, 4),
    "mistral": (WHOLE_GROUPS, 2),
    "phi3": (WHOLE_GROUPS | {"head_dim": None, "pad_token_id": 0}, 2),
}


NUM_TOKENS = 8

Answer = tuple[list[int], list[float]]
"""A prompt with what greedy decoding makes of it, and the log-probability of each token after the first."""


def make_model(folder: Path, model_type: str, changes: dict[str, Any]) -> Any:
    """A model of Transformers, saved in `folder`, with weights large enough that every part of it shows in the answer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {name: value for name, value in (SIZES | changes).items() if value is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.1 if parameter.ndim > 1 else 0.3)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def answer_of_transformers(model: Any, prompt: list[int]) -> Answer:
    tokens = list(prompt)
    for _ in range(NUM_TOKENS):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return tokens, [float(logprobs[place, token]) for place, token in enumerate(tokens[1:])]


def answers_of_vllm(folder: Path, engine: dict[str, Any]) -> list[Answer]:
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        skip_tokenizer_init=True,
        enforce_eager=True,
        dtype="float32",
        kv_cache_memory_bytes=10_000_000,
        max_model_len=64,
        max_num_batched_tokens=64,
        max_num_seqs=4,
        disable_log_stats=True,
        **engine,
    )
    sampling = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, logprobs=0, prompt_logprobs=0, ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], sampling, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    found = []
    for output in outputs:
        steps = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
        tokens = [*output.prompt_token_ids, *output.outputs[0].token_ids]
        found.append((tokens, [step[token].logprob for step, token in zip(steps, tokens[1:], strict=True)]))
    return found


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine without processes of its own, cleared away after each test."""
    from vllm.distributed import cleanup_dist_env_and_memory

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    yield
    cleanup_dist_env_and_memory()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("model_type", MODELS)
def test_a_padded_model_answers_as_transformers_does_without_padding(model_type, tmp_path):
    changes, ranks = MODELS[model_type]
    model = make_model(tmp_path, model_type, changes)
    settled = settle({"tensor_parallel_size": ranks}, str(tmp_path), on_cpu=True)
    assert settled["hf_overrides"]["num_attention_heads"] > model.config.num_attention_heads
    # The plan for several ranks, on one: every padded head is there, and is computed.
    for prompt, (tokens, logprobs) in zip(PROMPTS, answers_of_vllm(tmp_path, settled | {"tensor_parallel_size": 1}), strict=True):
        expected_tokens, expected_logprobs = answer_of_transformers(model, prompt)
        assert tokens == expected_tokens
        torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=1e-3)


TEXTS = ["The capital of France is", "def fibonacci(n):"]
TOLERANCE = 0.25
"""Of a log-probability in BF16 where several ranks sum in another order than one: over three ranks they differed by up to 0.15."""


def completion(url: str, text: str) -> tuple[str, list[float]]:
    body = {"prompt": text, "temperature": 0, "max_tokens": 12, "logprobs": 0, "echo": True}
    choice = httpx.post(f"{url}/v1/completions", json=body, timeout=120).raise_for_status().json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"][1:]


def test_nine_heads_over_two_ranks_give_the_text_of_one(server, tmp_path, cache_dir):
    settings = {"TOKENPORT_TENSOR_PARALLEL_SIZE": "2", "TOKENPORT_KV_CACHE_MEMORY_BYTES": "200M"}
    with start_server(tmp_path, cache_dir, **settings) as two_ranks:
        for text in TEXTS:
            (expected, expected_logprobs), (answer, logprobs) = completion(server.url, text), completion(two_ranks.url, text)
            assert answer == expected
            torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=TOLERANCE)
        (line,) = [line["message"] for line in two_ranks.logged() if line["message"].startswith("padded")]
        assert "9 query heads run as 12, 3 KV heads run as 4" in line


@pytest.mark.parametrize(("vocab_size", "ranks", "rows"), [(151936, 3, 50688), (500, 6, 96), (500, 4, 128)])
def test_a_vocabulary_is_divided_by_any_number_of_ranks(vocab_size, ranks, rows, monkeypatch):
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers import vocab_parallel_embedding

    from serving.engine import plugin

    plugin.register()
    world = SimpleNamespace(world_size=ranks, rank_in_group=ranks - 1)
    monkeypatch.setattr("vllm.distributed.parallel_state._TP", world)
    with set_current_vllm_config(VllmConfig()), torch.device("meta"):
        embedding = vocab_parallel_embedding.VocabParallelEmbedding(vocab_size, 8)
        head = vocab_parallel_embedding.ParallelLMHead(vocab_size, 8)
    assert embedding.weight.shape == head.weight.shape == (rows, 8)
    assert ranks * rows >= vocab_size
