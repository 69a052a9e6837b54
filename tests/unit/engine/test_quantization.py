"""Which quantisations are refused before anything loads, by settings and config.json alone."""

import pytest

from serving.engine import quantization
from serving.engine.quantization import check_quantization, checkpoint_method
from serving.errors import SettingsError
from serving.settings import load_settings

BITSANDBYTES = [
    ({"quantization": "bitsandbytes"}, {}, "quantization: bitsandbytes"),
    ({"load_format": "bitsandbytes"}, {}, "load_format: bitsandbytes"),
    ({}, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "the checkpoint: bitsandbytes"),
]


def refusal(engine: dict, config: dict | None = None, *, on_cpu: bool = True) -> str:
    with pytest.raises(SettingsError) as caught:
        check_quantization(engine, config or {}, on_cpu=on_cpu)
    return str(caught.value)


@pytest.mark.parametrize(("engine", "config", "where"), BITSANDBYTES)
def test_bitsandbytes_is_refused_on_the_cpu(engine, config, where):
    line = refusal(engine, config)
    assert line.startswith(where)
    assert "needs CUDA and the package vllm-bnb-plugin" in line
    assert "this is the CPU build" in line


@pytest.mark.parametrize(("engine", "config", "where"), BITSANDBYTES)
def test_bitsandbytes_on_cuda_needs_its_plugin(monkeypatch, engine, config, where):
    monkeypatch.setattr(quantization, "has_package", lambda _name: False)
    line = refusal(engine, config, on_cpu=False)
    assert line.startswith(where)
    assert "vllm-bnb-plugin, which is not installed" in line
    monkeypatch.setattr(quantization, "has_package", lambda name: name == "vllm-bnb-plugin")
    check_quantization(engine, config, on_cpu=False)


def test_a_package_is_found_by_its_metadata():
    assert quantization.has_package("pytest")
    assert not quantization.has_package("no-such-package-anywhere")


@pytest.mark.parametrize("dtype", ["float", "float32"])
def test_int8_in_fp32_is_refused(dtype):
    assert "dtype can be auto, bfloat16 or float16" in refusal({"quantization": "int8", "dtype": dtype})


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16", "half"])
def test_int8_passes_in_16_bits(dtype):
    check_quantization({"quantization": "int8", "dtype": dtype}, {"model_type": "llama"}, on_cpu=True)


@pytest.mark.parametrize("load_format", ["sharded_state", "tensorizer", "runai_streamer_sharded"])
def test_int8_from_a_dump_of_memory_is_refused(load_format):
    assert f"load_format={load_format}" in refusal({"quantization": "int8", "load_format": load_format})


@pytest.mark.parametrize("load_format", ["auto", "safetensors", "runai_streamer", "dummy"])
def test_int8_passes_with_formats_that_read_weights_one_by_one(load_format):
    check_quantization({"quantization": "int8", "load_format": load_format}, {}, on_cpu=True)


def test_a_pattern_that_is_no_regular_expression_is_named():
    line = refusal({"quantization": "int8", "quantization_config": {"ignore": ["model.layers.0.mlp", "re:(mlp"]}})
    assert line.startswith("quantization_config: ignore: 're:(mlp' is no regular expression")


def test_names_and_patterns_pass():
    check_quantization({"quantization": "int8", "quantization_config": {"ignore": ["lm_head", "re:.*mlp.*"]}}, {}, on_cpu=True)


def test_a_configuration_of_no_quantisation_is_refused():
    assert "set quantization=int8 too" in refusal({"quantization_config": {"ignore": ["lm_head"]}}, {"model_type": "llama"})


def test_a_quantised_checkpoint_passes_with_int8_whatever_else_is_set():
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    check_quantization({"quantization": "int8", "dtype": "float32"}, config, on_cpu=True)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"compression_config": {"format": "int-quantized"}}, "compression_config"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
    ],
)
def test_a_checkpoint_says_how_it_is_quantised(config, method):
    assert checkpoint_method(config) == method


def test_int8_is_accepted_from_every_source(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("quantization: int8\n")
    for words, environ in (
        (["--quantization", "int8"], {}),
        ([], {"TOKENPORT_QUANTIZATION": "int8"}),
        (["--config", str(file)], {}),
    ):
        assert load_settings(words, environ).engine["quantization"] == "int8"
