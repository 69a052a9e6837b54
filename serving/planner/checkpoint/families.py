"""What differs between the families of models that can be planned from a config.json alone: norms, biases, the form of the MLP.

A row a `model_type`, read from Transformers' modeling files and held to its models by a test. Experts and latent attention are not here:
the config's own fields tell them.
"""

from dataclasses import dataclass

Flag = bool | str
"""A feature of the family, or the field of the config that switches it on; `!name` where it is on unless the field says otherwise."""


@dataclass(frozen=True)
class Family:
    """`num_norms`: vectors of hidden_size in a layer, with a bias each if `norm_bias`. `qk_norm`: of queries and keys, over one head or
    over all. `has_gate`: an MLP of three matrices, else of two. `position_rows`: of a table of positions beyond max_position_embeddings,
    None where positions are rotary. `is_tied`: whether the vocabulary's matrix is used twice where the config does not say."""

    num_norms: int = 2
    norm_bias: bool = False
    qkv_bias: Flag = False
    output_bias: Flag = False
    qk_norm: str | None = None
    has_gate: bool = True
    mlp_bias: Flag = False
    head_bias: bool = False
    position_rows: int | None = None
    is_tied: bool = False
    num_final_norms: int = 1
    has_sinks: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    router_correction: bool = False


_LIKE_LLAMA = Family(qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias")
_ATTENTION_BIAS = Family(qkv_bias="attention_bias", output_bias="attention_bias")
_OLMO2 = Family(qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="all")
_GEMMA2 = Family(num_norms=4, qkv_bias="attention_bias", output_bias="attention_bias", is_tied=True)
_GPT2 = Family(norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True, has_gate=False, position_rows=0, is_tied=True)
FAMILIES: dict[str, Family] = {
    "llama": _LIKE_LLAMA,
    "mistral": Family(),
    "mixtral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias="!qkv_bias", shared_gate=True),
    "qwen3": Family(qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head"),
    "qwen3_moe": Family(qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head"),
    "phi3": Family(),
    "phi": Family(num_norms=1, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True, has_gate=False, head_bias=True),
    "gemma": Family(qkv_bias="attention_bias", output_bias="attention_bias", is_tied=True),
    "gemma2": _GEMMA2,
    "gemma3_text": Family(num_norms=4, qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", is_tied=True),
    "granite": _LIKE_LLAMA,
    "granitemoe": _ATTENTION_BIAS,
    "olmo": Family(num_norms=0, num_final_norms=0, qkv_bias="attention_bias", output_bias="attention_bias"),
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmoe": _OLMO2,
    "smollm3": _LIKE_LLAMA,
    "seed_oss": Family(qkv_bias="!attention_bias", output_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "starcoder2": Family(norm_bias=True, qkv_bias="!use_bias", output_bias="!use_bias", mlp_bias="!use_bias", has_gate=False, is_tied=True),
    "stablelm": Family(norm_bias=True, qkv_bias="use_qkv_bias"),
    "deepseek_v2": Family(),
    "deepseek_v3": Family(router_correction=True),
    "gpt_oss": Family(qkv_bias="!attention_bias", output_bias="!attention_bias", has_sinks=True, expert_bias=True),
    "gpt_neox": Family(norm_bias=True, qkv_bias="!attention_bias", output_bias="!attention_bias", mlp_bias=True, has_gate=False),
    "opt": Family(
        norm_bias=True,
        qkv_bias="!enable_bias",
        output_bias="!enable_bias",
        mlp_bias="!enable_bias",
        has_gate=False,
        position_rows=2,
        is_tied=True,
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "falcon": Family(num_norms=1, norm_bias=True, qkv_bias="bias", output_bias="bias", mlp_bias="bias", has_gate=False, is_tied=True),
    "cohere": Family(num_norms=1, qkv_bias="attention_bias", output_bias="attention_bias", is_tied=True),
    "cohere2": Family(num_norms=1, qkv_bias="attention_bias", output_bias="attention_bias", is_tied=True),
    "exaone4": Family(qk_norm="head"),
    "glm4": Family(num_norms=4, qkv_bias="attention_bias"),
    "helium": _ATTENTION_BIAS,
    "arcee": Family(qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias", has_gate=False),
    "ernie4_5": Family(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", is_tied=True),
    "bloom": Family(norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True, has_gate=False, is_tied=True),
}
_LIKE_GPT_IN_TRANSFORMERS = ("gpt_bigcode", "gpt_neox", "phi", "starcoder2")
_LIKE_LLAMA_IN_TRANSFORMERS = ("arcee", "glm", "helium", "hunyuan_v1_dense", "olmo", "olmo2", "olmo3", "seed_oss", "smollm3")
RUN_BY_TRANSFORMERS = frozenset(_LIKE_GPT_IN_TRANSFORMERS + _LIKE_LLAMA_IN_TRANSFORMERS)
"""Families that vLLM 0.32 has no code of its own for (`_TRANSFORMERS_SUPPORTED_MODELS` in vllm/model_executor/models/registry.py)."""
