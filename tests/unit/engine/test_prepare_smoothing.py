"""Smoothing moves a large channel from the activations into the weights, and leaves the product what it was."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from serving.engine.prepare.command import prepare
from serving.engine.prepare.layers import choose_layers
from serving.engine.prepare.smoothing import FACTORS, find_factors
from serving.engine.prepare.source import read_source
from serving.errors import SettingsError
from tests.conftest import settings_in

NORM = "model.layers.0.input_layernorm"
LOUD = 5
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose first norm makes one channel fifty times as large as the others."""
    folder = tmp_path_factory.mktemp("source")
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY), dtype=torch.bfloat16)
    model.get_submodule(NORM).weight.data[LOUD] = 50
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"the": 1, "a": 2, "[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def test_norm_times_weight_is_what_it_was_within_half_a_step(source: Path, tmp_path: Path) -> None:
    prepare([str(source), str(tmp_path / "out"), "--quantization", "int8", "--smooth"], settings_in(tmp_path), {})
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert not torch.equal(before[f"{NORM}.weight"], after[f"{NORM}.weight"])
    for layer in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.0.self_attn.{layer}.weight"
        exact = before[f"{NORM}.weight"].float() * before[name].float()
        scales, norm = after[f"{name}_scale"], after[f"{NORM}.weight"].float()
        assert bool(((norm * (after[name].float() * scales) - exact).abs() <= 0.501 * scales * norm.abs()).all())
    # What no norm feeds is rounded as it is.
    name = "model.layers.0.mlp.down_proj.weight"
    assert bool(((after[name].float() * after[f"{name}_scale"] - before[name].float()).abs() <= 0.501 * after[f"{name}_scale"]).all())
    assert not (tmp_path / "out" / FACTORS).exists()


def test_the_loud_channel_is_divided_most_and_the_factors_are_measured_once(source: Path, tmp_path: Path) -> None:
    checkpoint = read_source(source, "tiny")
    layers = choose_layers(checkpoint, [])
    factors = find_factors(checkpoint, layers, 0.5, tmp_path)
    assert set(factors) == {NORM, "model.layers.0.post_attention_layernorm"}
    assert int(factors[NORM].argmax()) == LOUD
    assert float(factors[NORM][LOUD] / factors[NORM].median()) > 4
    written = (tmp_path / FACTORS).stat().st_mtime_ns
    again = find_factors(checkpoint, layers, 0.5, tmp_path)
    assert torch.equal(again[NORM], factors[NORM])
    assert (tmp_path / FACTORS).stat().st_mtime_ns == written


def test_a_norm_that_also_feeds_a_layer_in_16_bit_is_left_alone(source: Path, tmp_path: Path) -> None:
    words = ["--quantization", "int8", "--smooth", r"--ignore=re:.*self_attn\.[qkv]_proj"]
    prepare([str(source), str(tmp_path / "out"), *words], settings_in(tmp_path), {})
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(before[f"{NORM}.weight"], after[f"{NORM}.weight"])


def test_an_architecture_whose_norms_are_not_known_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gemma", **TINY | {"head_dim": 16})
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "gemma")
    with pytest.raises(SettingsError, match="--smooth knows llama, mistral, phi3, qwen2, qwen3, not gemma: keep layers"):
        prepare([str(tmp_path / "gemma"), str(tmp_path / "out"), "--quantization", "int8", "--smooth"], settings_in(tmp_path), {})
