"""Blocks and bytes of the KV cache, held to vLLM's own grouping of layers and its own count of a sequence's blocks."""

from types import SimpleNamespace

import pytest

from serving.errors import PlanError
from serving.planner.checkpoint.decoder_config import LATENT
from serving.planner.memory.division import sharding_of
from serving.planner.memory.kv_cache import Window, kv_cache_of, layer_windows
from serving.planner.memory.layout import Layout
from tests.unit.planner.known_models import model

BLOCK = 16


def cache_of(name, *, num_ranks=1, num_stages=1, tokens=2048, dtype="auto", **changes):
    planned = model(name, **changes)
    return kv_cache_of(planned, Layout(sharding_of(planned, num_ranks, quantization=None), num_stages), dtype, 2, tokens)


def vllm_count(windows, context, in_flight, layer_bytes):
    """(blocks of a sequence, bytes of a block) as vLLM 0.32 has them for layers with these windows."""
    import torch
    from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
    from vllm.v1.kv_cache_interface import ChunkedLocalAttentionSpec, FullAttentionSpec, SlidingWindowSpec

    shape = {"block_size": BLOCK, "num_kv_heads": 1, "head_size": layer_bytes // 4, "dtype": torch.bfloat16}

    def spec(window):
        if window is None:
            return FullAttentionSpec(**shape)
        if window.is_chunk:
            return ChunkedLocalAttentionSpec(**shape, attention_chunk_size=window.num_tokens)
        return SlidingWindowSpec(**shape, sliding_window=window.num_tokens)

    specs = {f"layer.{number}": spec(window) for number, window in enumerate(windows)}
    config = SimpleNamespace(
        max_in_flight_tokens=in_flight,
        model_config=SimpleNamespace(max_model_len=context),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        cache_config=SimpleNamespace(get_resolved_kv_cache_layout=lambda: SimpleNamespace(is_block_outermost=False)),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
    )
    groups = get_kv_cache_groups(config, specs)
    blocks = sum(-(-group.kv_cache_spec.max_memory_usage_bytes(config) // group.kv_cache_spec.page_size_bytes) for group in groups)
    return blocks, max(len(group.layer_names) for group in groups) * groups[0].kv_cache_spec.page_size_bytes


@pytest.mark.parametrize("context", [1000, 8192])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Llama-3.1-8B", {}),
        ("gemma-2-9b", {}),
        ("gpt-oss-20b", {}),
        ("gemma-2-27b", {"model_type": "gemma3_text", "num_hidden_layers": 62, "sliding_window": 1024}),
        ("gemma-2-27b", {"layer_types": ["sliding_attention"] * 20 + ["full_attention"] * 26}),
        ("Llama-3.1-8B", {"model_type": "mistral", "sliding_window": 4096}),
        ("Llama-3.1-8B", {"attention_chunk_size": 512}),
    ],
    ids=["full", "gemma 2", "gpt-oss", "gemma 3", "20 and 26 layers", "all windowed", "llama 4"],
)
def test_blocks_are_counted_as_vllm_counts_them(name, changes, context):
    cache = cache_of(name, tokens=2048, **changes)
    windows = layer_windows(model(name, **changes).decoder)
    assert (cache.blocks(context), cache.block_bytes) == vllm_count(windows, context, 2 * 2048, cache.layer_bytes)


def test_a_sliding_window_holds_its_window_and_what_is_under_way():
    cache = cache_of("Llama-3.1-8B", model_type="mistral", sliding_window=4096, tokens=1024)
    assert cache.blocks(131072) == cache.blocks(65536) == -(-(4095 + 2 * 1024) // BLOCK) + 1


def test_bytes_of_a_windowed_model_are_those_of_a_sequence_by_its_tokens():
    cache = cache_of("gemma-2-9b", tokens=512)
    assert cache.bytes_per_token(8192) == -(-cache.blocks(8192) * cache.block_bytes // 8192)
    assert cache.bytes_per_token(8192) < 2 * 8 * 256 * 2 * 42


def test_pipeline_stages_share_the_layers():
    whole, halves = cache_of("Llama-3.1-8B"), cache_of("Llama-3.1-8B", num_stages=2)
    assert halves.block_bytes == whole.block_bytes / 2
    assert halves.bytes_per_token(4096) == whole.bytes_per_token(4096)
    uneven = cache_of("DeepSeek-V2-Lite", num_stages=2)
    assert uneven.block_bytes == 14 * uneven.layer_bytes * BLOCK
    assert uneven.bytes_per_token(4096) == 31_104


def test_the_longest_context_is_the_last_that_holds():
    cache = cache_of("gemma-2-9b")
    for num_blocks in (1, 2, 500, 5000, 100_000):
        longest = cache.longest_context(num_blocks, 3, 8192)
        assert longest == 0 or 3 * cache.blocks(longest) <= num_blocks - 1
        assert longest == 8192 or 3 * cache.blocks(longest + 1) > num_blocks - 1


def test_a_cache_in_floats_of_another_type_is_counted_by_its_own_bytes():
    assert cache_of("Llama-3.1-8B", dtype="float32").layer_bytes == 2 * cache_of("Llama-3.1-8B", dtype="bfloat16").layer_bytes


def test_a_checkpoint_that_brings_scales_for_an_fp8_cache_has_one():
    scheme = {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}}}}
    with_scales = scheme | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    assert cache_of("Llama-3.1-8B", quantization_config=with_scales).layer_bytes * 2 == cache_of("Llama-3.1-8B").layer_bytes
    assert cache_of("Llama-3.1-8B", quantization_config=scheme).layer_bytes == cache_of("Llama-3.1-8B").layer_bytes


def test_a_type_that_is_not_planned_is_refused_with_those_that_are():
    with pytest.raises(PlanError, match=r"kv_cache_dtype='int4_per_token_head' is not planned \(nearest: .*\); it can be auto, .*fp8"):
        cache_of("Llama-3.1-8B", dtype="int4_per_token_head")


SEES, WINDOW, CHUNK = None, Window(4096), Window(8192, is_chunk=True)


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, [SEES] * 4),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 0}, [WINDOW] * 4),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 3}, [SEES, SEES, SEES, WINDOW]),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}, [SEES] * 4),
        ({"sliding_window": 4096}, [WINDOW] * 4),
        ({"sliding_window": None}, [SEES] * 4),
        ({"model_type": "cohere2", "sliding_window": 4096, "sliding_window_pattern": 2}, [WINDOW, SEES, WINDOW, SEES]),
        ({"attention_chunk_size": 8192}, [CHUNK, CHUNK, CHUNK, SEES]),
        ({"attention_chunk_size": 8192, "no_rope_layers": [1, 0, 1, 0]}, [CHUNK, SEES, CHUNK, SEES]),
        ({"attention_chunk_size": 8192, "layer_types": ["chunked_attention", *["full_attention"] * 3]}, [CHUNK, SEES, SEES, SEES]),
    ],
)
def test_which_layers_look_back_how_far_is_what_the_config_says(changes, windows):
    assert layer_windows(model("Llama-3.1-8B", num_hidden_layers=4, **changes).decoder) == windows


def test_a_pattern_of_windows_that_is_not_planned_is_named():
    with pytest.raises(PlanError, match=r"sliding_window_pattern='LLLG' is no whole number, and layer_types is missing"):
        cache_of("Llama-3.1-8B", sliding_window=4096, sliding_window_pattern="LLLG")


def test_latent_attention_is_of_the_models_of_which_vllm_keeps_the_latent_vector():
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    for model_type in (*LATENT, "minicpm3"):
        config = SimpleNamespace(model_type=model_type, kv_lora_rank=512)
        assert ModelArchConfigConvertorBase(config, config).is_deepseek_mla() == (model_type in LATENT)
