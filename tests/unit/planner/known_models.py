"""Public models by the fields of their config.json that a plan needs, for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import serving.planner.memory
from serving.planner.hardware import Gpu
from serving.planner.interval import Interval, exactly
from serving.planner.model import Model, model_of

GIB = 2**30
MEASURED: dict[str, Any] = json.loads(Path(serving.planner.memory.__file__ or "").with_name("overheads.json").read_text(encoding="utf-8"))
CONFIGS: dict[str, dict[str, Any]] = MEASURED["configs"] | {
    "Llama-3.2-1B": {
        "model_type": "llama",
        "num_hidden_layers": 16,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    },
    "GPT-2": {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "Falcon-7B": {
        "model_type": "falcon",
        "num_hidden_layers": 32,
        "hidden_size": 4544,
        "num_attention_heads": 71,
        "vocab_size": 65024,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 24,
        "hidden_size": 2880,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2880,
        "vocab_size": 201088,
        "max_position_embeddings": 131072,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "DeepSeek-V3": {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "first_k_dense_replace": 3,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
        "max_position_embeddings": 163840,
    },
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "phi3": "Phi3ForCausalLM"}


def model(name: str, **changes: Any) -> Model:
    """One of CONFIGS, with `changes`, without safetensors files."""
    config = CONFIGS[name]
    architecture = ARCHITECTURES.get(config["model_type"])
    return model_of(name, config | ({"architectures": [architecture]} if architecture else {}) | changes)


def gpu(gib: float, *, rates: tuple[str, ...] = ("float16", "int8", "float8"), usable: Interval | None = None) -> Gpu:
    """A GPU of `gib` GiB."""
    size = usable or exactly(gib * GIB)
    return Gpu("a GPU", int(gib * GIB), size, 1e12, dict.fromkeys(rates, 1e14), "made up for this test", "2026-11-25")
