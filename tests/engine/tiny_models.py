"""Tiny models of many architectures, with weights that nobody has, and what the ledger measures of each once a real engine has started.

The engine is whole: vLLM's loader, its plan of the KV cache, a token. It runs in the process that asks, so that a model takes half a
second and not the ten that importing vLLM takes.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engine import ledger_worker
from serving.engine.devices import as_cpu
from serving.engine.model_to_plan import model_to_plan
from serving.planner.memory.fit import make_plan
from serving.planner.plan import Plan, PlanRequest

SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 500,
    "max_position_embeddings": 1024,
}
"""A vocabulary that vLLM fills up, and of everything else enough that no part of a model hides in another's rounding."""
HEADS = SIZES | {"head_dim": 32}
WINDOWED = HEADS | {"sliding_window": 64}
_ALL_HEADS = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
_NO_MLP = {name: size for name, size in _ALL_HEADS.items() if name != "intermediate_size"}
_GPT2 = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_inner": 256, "vocab_size": 500, "n_positions": 1024}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_OPT = _NO_MLP | {"ffn_dim": 256, "word_embed_proj_dim": 128}
_LATENT = {"num_key_value_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
_DEEPSEEK = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "arcee": HEADS,
    "bloom": {"hidden_size": 128, "n_layer": 4, "n_head": 4, "vocab_size": 500},
    "cohere": SIZES,
    "cohere2": WINDOWED,
    "deepseek_v2": _ALL_HEADS | _LATENT | _DEEPSEEK | {"q_lora_rank": None, "v_head_dim": 32, "n_group": 1, "topk_group": 1},
    "deepseek_v3": _ALL_HEADS | _LATENT | _DEEPSEEK | {"v_head_dim": 32, "n_group": 2, "topk_group": 1},
    "ernie4_5": HEADS,
    "exaone4": WINDOWED | {"sliding_window_pattern": 4},
    "falcon": _NO_MLP | {"new_decoder_architecture": True, "num_kv_heads": 2, "bos_token_id": 1, "eos_token_id": 1},
    "gemma": HEADS,
    "gemma2": WINDOWED,
    "gemma3_text": WINDOWED | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "glm4": HEADS | _TOKENS,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": _ALL_HEADS,
    "gpt_oss": WINDOWED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": SIZES,
    "granitemoe": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "helium": HEADS | _TOKENS,
    "llama": HEADS,
    "mistral": HEADS | {"sliding_window": None},
    "mixtral": HEADS | {"num_local_experts": 4},
    "olmo": SIZES,
    "olmo2": SIZES | _TOKENS,
    "olmo3": SIZES | _TOKENS | {"sliding_window": 64},
    "olmoe": SIZES | _EXPERTS,
    "opt": _OPT,
    "phi": SIZES,
    "phi3": SIZES | _TOKENS,
    "qwen2": SIZES,
    "qwen2_moe": SIZES | _EXPERTS | {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 128},
    "qwen3": HEADS,
    "qwen3_moe": HEADS | _EXPERTS | {"moe_intermediate_size": 64},
    "seed_oss": HEADS,
    "smollm3": SIZES | _TOKENS,
    "stablelm": SIZES,
    "starcoder2": SIZES,
}
"""By Transformers' `model_type` what its config is made with."""
INT8 = ("bloom", "falcon", "gemma2", "gpt2", "llama", "olmo2", "phi3", "qwen3")
"""Experts are in INT8 on CPUs with AMX only."""
CONTEXT, BATCHED_TOKENS = 1024, 64


@dataclass(frozen=True)
class Measured:
    """What the ledger says: of the weights on the rank that has the most, of the KV cache over all ranks. `kv_bytes_per_sequence`: of a
    sequence at full context."""

    weights_bytes: int
    kv_bytes_per_token: float
    kv_bytes_per_sequence: float


def write_config(folder: Path, model_type: str, **changes: Any) -> None:
    """A config.json as Transformers writes it, and no weights."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.for_model(model_type, **MODELS[model_type] | changes)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    config.save_pretrained(folder)


def planned(folder: Path, num_ranks: int = 1, **request: Any) -> Plan:
    """The plan of what `measured` starts."""
    sizes = {"max_num_batched_tokens": BATCHED_TOKENS, "max_num_seqs": 4, "tensor_parallel_size": num_ranks}
    wish = PlanRequest(**{"context": CONTEXT, "dtype": "bfloat16", "enforce_eager": True} | sizes | request)
    return make_plan(model_to_plan(str(folder), {}), wish, as_cpu(2**34), num_ranks)


def measured(folder: Path, **engine: Any) -> Measured:
    """Start an engine on `folder`, have it make a token, and read the ledger. Weights are made up where `folder` has none."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    # A process has one model, and vLLM's loader keeps the layers that it has quantised: those of earlier ones would count.
    ledger_worker._packed.clear()
    load_format = "auto" if any(folder.glob("*.safetensors")) else "dummy"
    sizes = {"max_model_len": CONTEXT, "max_num_batched_tokens": BATCHED_TOKENS, "max_num_seqs": 4, "kv_cache_memory_bytes": 10_000_000}
    with _collecting_once():
        llm = LLM(str(folder), load_format=load_format, skip_tokenizer_init=True, enforce_eager=True, dtype="bfloat16", **sizes | engine)
        llm.generate([{"prompt_token_ids": [1]}], SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
        ranks = llm.collective_rpc("tokenport_memory")
        found = _in_figures(ranks, llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_config)
        llm.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()
        del llm
    return found


def _in_figures(ranks: list[dict[str, Any]], kv_cache: Any) -> Measured:
    block_bytes = sum(rank["kv_cache_bytes"] / rank["kv_cache_blocks"] for rank in ranks)
    blocks_per_sequence = round(ranks[0]["kv_cache_blocks"] / ranks[0]["kv_cache_sequences"])
    return Measured(
        weights_bytes=max(sum(rank["weights_by_dtype"].values()) for rank in ranks),
        # Each group of layers has blocks of its own for a token.
        kv_bytes_per_token=sum(block_bytes / group.kv_cache_spec.block_size for group in kv_cache.kv_cache_groups),
        kv_bytes_per_sequence=block_bytes * blocks_per_sequence,
    )


@contextlib.contextmanager
def _collecting_once() -> Iterator[None]:
    """vLLM collects garbage several times an engine, over everything that is imported, which for a tiny model is most of the time that it
    takes. Here what an engine leaves is collected once, and before the next one is measured."""
    collect, freeze, unfreeze = gc.collect, gc.freeze, gc.unfreeze
    freeze()
    gc.collect, gc.freeze, gc.unfreeze = lambda *_: 0, lambda: None, lambda: None
    try:
        yield
    finally:
        gc.collect, gc.freeze, gc.unfreeze = collect, freeze, unfreeze
        collect()
        unfreeze()
