"""Sizes of public models that are known from elsewhere: parameters as their makers count them, bytes of KV cache a token."""

import pytest

from serving.planner.memory.division import sharding_of
from serving.planner.memory.kv_cache import kv_cache_of
from serving.planner.memory.layout import Layout
from tests.unit.planner.known_models import model


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.3-70B-fp8-dynamic", 70_553_706_496),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-72B", 72_706_203_648),
        ("Qwen3-8B", 8_190_735_360),
        ("gemma-2-9b", 9_241_705_984),
        ("phi-4", 14_659_507_200),
        ("Mixtral-8x7B", 46_702_792_704),
        ("DeepSeek-V2-Lite", 15_706_484_224),
        ("DeepSeek-V3", 671_026_419_200),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("gpt-oss-20b", 20_914_757_184),
        ("GPT-2", 124_439_808),
        ("Falcon-7B", 6_921_720_704),
    ],
)
def test_a_config_alone_tells_the_number_of_parameters(name, num_parameters):
    assert sum(tensor.num_elements for tensor in model(name).tensors) == num_parameters


@pytest.mark.parametrize(
    ("name", "num_ranks", "kv_bytes"),
    [
        ("Llama-3.1-8B", 1, 131_072),
        ("Llama-3.1-8B", 8, 131_072),
        ("Llama-3.1-8B", 16, 262_144),  # each of the 8 KV heads on two ranks
        ("Llama-3.3-70B-fp8-dynamic", 4, 327_680),
        ("Qwen2.5-7B", 1, 57_344),
        ("Qwen3-30B-A3B", 1, 98_304),  # heads of 128, not of hidden_size / num_attention_heads
        ("DeepSeek-V2-Lite", 1, 31_104),
        ("DeepSeek-V2-Lite", 4, 4 * 31_104),  # latent attention: all of it on every rank
        ("DeepSeek-V3", 1, 70_272),
    ],
)
def test_a_token_takes_the_bytes_of_kv_cache_that_it_is_known_to(name, num_ranks, kv_bytes):
    planned = model(name)
    layout = Layout(sharding_of(planned, num_ranks, quantization=None))
    assert kv_cache_of(planned, layout, "auto", 2, 8192).bytes_per_token(4096) == kv_bytes
    assert kv_cache_of(planned, layout, "fp8", 2, 8192).bytes_per_token(4096) == kv_bytes / 2
