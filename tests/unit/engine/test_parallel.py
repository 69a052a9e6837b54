"""Sizes as the user asks for them, models as config.json tells, and GPUs that are only numbers."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest

from serving.engine.devices import as_gpu
from serving.engine.kv_cache_size import Wish
from serving.engine.padding import CONFIG_KEY
from serving.engine.parallel import check_parallel_sizes
from serving.engine.settle import settle
from serving.errors import NoFit, SettingsError
from serving.planner.hardware import Gpu

GIB = 2**30
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
}
INT8_CHECKPOINT = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "strategy": "channel"}}},
}
LARGE = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
}


def check(config: dict, on_cpu: bool = False, **engine) -> str | None:
    """The refusal, None if there is none."""
    try:
        check_parallel_sizes(config, engine, on_cpu=on_cpu)
    except SettingsError as error:
        return str(error)
    return None


@pytest.fixture
def model(tmp_path: Path):
    """Writes a model's config.json."""

    def write(config: dict) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return write


def gpus(number: int, gib: float) -> list[Gpu]:
    return [as_gpu("NVIDIA H100 80GB HBM3", int(gib * GIB))] * number


def no_gpus() -> list[Gpu]:
    raise AssertionError("asked for GPUs")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_model_that_can_be_padded_is_split_over_any_number(size):
    assert check(LLAMA, tensor_parallel_size=size) is None


@pytest.mark.parametrize(
    ("change", "engine", "why"),
    [
        ({"model_type": "granite", "architectures": ["GraniteForCausalLM"]}, {}, "known of LlamaForCausalLM, Qwen2ForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, {}, "known of LlamaForCausalLM"),
        ({"hidden_act": "gelu"}, {}, "activation gelu"),
        ({"dual_chunk_attention_config": {"a": 1}}, {}, "dual_chunk_attention_config"),
        ({}, {"load_format": "runai_streamer"}, "load_format=runai_streamer"),
        ({}, {"config_format": "mistral"}, "config_format=mistral"),
        ({}, {"model_impl": "transformers"}, "model_impl=transformers"),
        ({}, {"enable_lora": True}, "unset enable_lora"),
        ({}, {"speculative_config": {"model": "other"}}, "second model"),
        ({}, {"quantization": "awq"}, "quantization=awq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {}, "quantized with gptq"),
        ({"quantization_config": INT8_CHECKPOINT | {"format": "pack-quantized"}}, {}, "quantized with compressed-tensors"),
    ],
)
def test_what_cannot_be_padded_is_refused_with_the_reason_and_the_sizes_that_divide(change, engine, why):
    line = check(LLAMA | change, tensor_parallel_size=2, **engine)
    assert "tensor_parallel_size=2 cannot divide the model: it has 9 attention heads, 3 KV heads and an MLP of 1536" in line
    assert "sizes that can: 1, 3;" in line
    assert why in line
    assert check(LLAMA | change, tensor_parallel_size=3, **engine) is None


@pytest.mark.parametrize("change", [{"quantization_config": INT8_CHECKPOINT}, {"num_key_value_heads": 9}])
def test_plain_8_bit_checkpoints_and_other_head_counts_can_be_padded(change):
    assert check(LLAMA | change, tensor_parallel_size=2) is None


def test_stages_are_refused_on_the_cpu_and_beyond_the_number_of_layers():
    assert "CPU backend has no pipeline stages" in check(LLAMA, on_cpu=True, pipeline_parallel_size=2)
    assert check(LLAMA, pipeline_parallel_size=30) is None
    assert "pipeline_parallel_size=31 is more than the model's 30 layers" in check(LLAMA, pipeline_parallel_size=31)


def test_expert_parallelism_needs_experts():
    assert "this model has none" in check(LLAMA, enable_expert_parallel=True)
    assert check(LLAMA | {"num_experts": 8}, enable_expert_parallel=True) is None


@pytest.mark.parametrize("name", ["distributed_executor_backend", "data_parallel_backend"])
def test_ray_has_to_be_installed_and_needs_gpus(name, monkeypatch):
    assert "CPU backend does not run on Ray" in check(LLAMA, on_cpu=True, **{name: "ray"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'tokenport[ray]'" in check(LLAMA, **{name: "ray"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
    assert check(LLAMA, **{name: "ray"}) is None


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"])
def test_sizes_below_one_are_refused(name):
    assert check(LLAMA, **{name: 0}) == f"{name}=0: 1 or more"


def test_overridden_sizes_are_those_that_count():
    assert (
        check(LLAMA, tensor_parallel_size=2, load_format="tensorizer", hf_overrides={"num_attention_heads": 4, "num_key_value_heads": 2})
        is None
    )
    nested = {"model_type": "vl", "text_config": LLAMA}
    assert check(nested, tensor_parallel_size=2, hf_overrides={"text_config": {"num_attention_heads": 4, "num_key_value_heads": 2}}) is None
    assert "known of" in check(nested, tensor_parallel_size=2)
    assert check(LLAMA, tensor_parallel_size=2, load_format="tensorizer", hf_overrides="some.function") is None


def test_one_device_is_settled_without_a_look_at_anything():
    assert settle({"seed": 1}, "org/name", on_cpu=False, visible=no_gpus) == {"seed": 1}
    assert settle({"tensor_parallel_size": 1}, "org/name", on_cpu=False, visible=no_gpus) == {"tensor_parallel_size": 1}


def test_auto_is_one_on_the_cpu():
    assert settle({"tensor_parallel_size": "auto"}, "org/name", on_cpu=True, visible=no_gpus) == {"tensor_parallel_size": 1}


def test_sizes_that_divide_leave_the_settings_as_they_are(model):
    engine = {"tensor_parallel_size": 3, "hf_overrides": {"rope_theta": 1.0}}
    assert settle(engine, model(LLAMA), on_cpu=True, visible=no_gpus) == engine


def test_padding_is_told_to_vllm_beside_what_the_user_tells_it_and_once_in_the_log(model, caplog):
    engine = {"tensor_parallel_size": 2, "hf_overrides": {"rope_theta": 1.0}, "additional_config": {"mine": 1}}
    with caplog.at_level(logging.INFO, "tokenport.engine"):
        settled = settle(engine, model(LLAMA), on_cpu=True, visible=no_gpus)
    sizes = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1536}
    assert settled["hf_overrides"] == {"rope_theta": 1.0, **sizes}
    assert settled["additional_config"]["mine"] == 1
    assert settled["additional_config"][CONFIG_KEY]["kv_sources"] == [0, 1, 2, -1]
    assert settled["tensor_parallel_size"] == 2
    assert [record.message for record in caplog.records] == [
        "padded for tensor_parallel_size=2: 9 query heads run as 12, 3 KV heads run as 4; this costs 16.9 MiB of weights and 7680 bytes of "
        "KV cache a token more, on all devices together"
    ]


def test_of_a_checkpoint_of_mistrals_the_weights_that_go_with_config_json_are_loaded(model):
    mistral = LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    settled = settle({"tensor_parallel_size": 2, "load_format": "safetensors"}, model(mistral), on_cpu=True, visible=no_gpus)
    assert (settled["config_format"], settled["load_format"]) == ("hf", "safetensors")


@pytest.mark.parametrize(
    ("number", "gib", "quantization", "size"),
    # 2 of 79 GiB hold it by the estimate, and are taken only where there are no more.
    [(1, 178, None, 1), (2, 79, None, 2), (8, 90, None, 2), (8, 24, "int8", 4), (8, 44, None, 4)],
)
def test_auto_takes_the_fewest_gpus_that_surely_hold_the_model(model, number, gib, quantization, size):
    engine = {"tensor_parallel_size": "auto", "quantization": quantization, "max_model_len": 4096}
    settled = settle(engine, model(LLAMA | LARGE), on_cpu=False, visible=lambda: gpus(number, gib))
    assert settled["tensor_parallel_size"] == size
    assert "hf_overrides" not in settled


def test_auto_pads_where_the_number_does_not_divide(model):
    engine = {"tensor_parallel_size": "auto", "max_model_len": 4096}
    settled = settle(engine, model(LLAMA | LARGE), on_cpu=False, visible=lambda: gpus(4, 64))
    assert settled["tensor_parallel_size"] == 3
    assert settled["hf_overrides"]["num_attention_heads"] == 72
    with_lora = settle(engine | {"enable_lora": True}, model(LLAMA | LARGE), on_cpu=False, visible=lambda: gpus(4, 64))
    assert with_lora["tensor_parallel_size"] == 4


def test_auto_has_room_for_the_kv_cache_that_was_asked_for(model):
    def size(**wish) -> int:
        engine = {"tensor_parallel_size": "auto", "max_model_len": 4096}
        return settle(engine, model(LLAMA | LARGE), on_cpu=False, wish=Wish(**wish), visible=lambda: gpus(8, 79))["tensor_parallel_size"]

    assert [size(), size(sequences=32), size(tokens=500_000)] == [3, 3, 8]


def test_auto_tells_what_is_needed_where_nothing_fits(model):
    with pytest.raises(NoFit, match=r"on each of 2 GPUs it needs .* GiB"):
        settle({"tensor_parallel_size": "auto"}, model(LLAMA | LARGE), on_cpu=False, visible=lambda: gpus(2, 22))


@pytest.mark.parametrize(
    ("config", "engine", "why"),
    [
        ({}, {}, "model_type is missing"),
        (LLAMA | {"model_type": "lama"}, {}, "nearest: llama"),
        (LLAMA | LARGE, {"nnodes": 2}, "other machines"),
    ],
)
def test_auto_that_cannot_be_decided_asks_for_the_number(model, config, engine, why):
    with pytest.raises(SettingsError, match=why) as caught:
        settle({"tensor_parallel_size": "auto", **engine}, model(config), on_cpu=False, visible=lambda: gpus(2, 22))
    assert "write the number" in str(caught.value)


def test_more_devices_than_there_are_is_told_before_anything_loads(model):
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 3}
    with pytest.raises(SettingsError) as caught:
        settle(engine, model(LLAMA), on_cpu=False, visible=lambda: gpus(8, 22))
    assert "tensor_parallel_size=2 x pipeline_parallel_size=2 x data_parallel_size=3 needs 12, 8 visible" in str(caught.value)
    for here in ({"data_parallel_size_local": 2}, {"data_parallel_rank": 0}, {"nnodes": 2}):
        settle(engine | here, model(LLAMA), on_cpu=False, visible=lambda: gpus(8, 22))
