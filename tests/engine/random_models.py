"""Small models with random weights, what Transformers answers with them, and what vLLM does, in the process that asks."""

from pathlib import Path
from typing import Any

import torch

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
    return tokens, logprobs_of_transformers(model, tokens)


@torch.no_grad()
def logprobs_of_transformers(model: Any, tokens: list[int]) -> list[float]:
    """Of each token after the first."""
    logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return [float(logprobs[place, token]) for place, token in enumerate(tokens[1:])]


def answers_of_vllm(folder: Path, engine: dict[str, Any], prompts: list[list[int]] = PROMPTS) -> list[Answer]:
    from vllm import LLM, SamplingParams

    chosen = {
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "dtype": "float32",
        "kv_cache_memory_bytes": 10_000_000,
        "max_model_len": 64,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 4,
        "disable_log_stats": True,
    }
    llm = LLM(str(folder), **chosen | engine)
    sampling = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, logprobs=0, prompt_logprobs=0, ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    found = []
    for output in outputs:
        steps = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
        tokens = [*output.prompt_token_ids, *output.outputs[0].token_ids]
        found.append((tokens, [step[token].logprob for step, token in zip(steps, tokens[1:], strict=True)]))
    return found
