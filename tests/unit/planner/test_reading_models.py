"""What is read of a model: a folder, a config.json, a hub id; and what is said of files that cannot be planned."""

import json
import struct
from pathlib import Path

import pytest

from serving.errors import PlanError
from serving.planner.checkpoint.tensors import Tensor, read_tensors
from serving.planner.model import Fetched, model_of, read_model
from tests.unit.planner.known_models import CONFIGS

LLAMA = CONFIGS["Llama-3.1-8B"]


def write_safetensors(file: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    header = {"__metadata__": {"format": "pt"}}
    header |= {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def folder_of(path: Path, config: object = None, tensors: dict[str, tuple[str, list[int]]] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(LLAMA if config is None else config))
    if tensors:
        write_safetensors(path / "model.safetensors", tensors)
    return path


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in LLAMA.items() if name not in names}


def test_headers_make_the_sizes_exact(tmp_path):
    read = read_model(str(folder_of(tmp_path, tensors={"model.norm.weight": ("BF16", [4096]), "x.q_proj.weight": ("I8", [8, 4])})))
    assert read.is_exact
    assert {(tensor.name, tensor.num_bytes) for tensor in read.tensors} == {("model.norm.weight", 8192), ("x.q_proj.weight", 32)}
    assert read.assumed == ()


@pytest.mark.parametrize("source", ["", "config.json"])
def test_a_config_alone_is_enough_and_is_said_to_be_all_there_was(tmp_path, source):
    read = read_model(str(folder_of(tmp_path) / source))
    assert not read.is_exact
    assert sum(tensor.num_elements for tensor in read.tensors) == 8_030_261_248
    assert read.assumed == ("sizes of the weights: computed from the config, since there are no safetensors files",)


def test_the_files_that_an_index_names_are_read_and_no_others(tmp_path):
    for name in ("a", "b", "copy"):
        write_safetensors(tmp_path / f"{name}.safetensors", {f"{name}.weight": ("F16", [2])})
    index = {"weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [tensor.name for tensor in read_tensors(tmp_path)] == ["a.weight", "b.weight"]


def test_what_the_engine_leaves_in_the_files_is_not_counted(tmp_path):
    tensors = {
        "model.embed_tokens.weight": ("BF16", [8, 4]),
        "lm_head.weight": ("BF16", [8, 4]),
        "model.layers.31.mlp.up_proj.weight": ("BF16", [4, 4]),
        "model.layers.32.mlp.up_proj.weight": ("BF16", [4, 4]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [64]),
    }
    read = read_model(str(folder_of(tmp_path, LLAMA | {"tie_word_embeddings": True}, tensors)))
    assert [tensor.name for tensor in read.tensors] == ["model.embed_tokens.weight", "model.layers.31.mlp.up_proj.weight"]


def test_a_multimodal_model_is_planned_by_its_text_part():
    wrapper = {"model_type": "llava", "text_config": LLAMA, "vision_config": {"hidden_size": 1024}}
    read = model_of("wrapper", wrapper)
    assert sum(tensor.num_elements for tensor in read.tensors) == 8_030_261_248
    assert "weights of other inputs than text: left out, since there are no safetensors files to tell them" in read.assumed


def test_a_hub_id_is_fetched_and_a_path_is_not():
    asked = []

    def fetch(model: str) -> Fetched:
        asked.append(model)
        return Fetched(LLAMA, (Tensor("model.norm.weight", (4096,), "BF16"),))

    assert read_model("meta-llama/Llama-3.1-8B", fetch).is_exact
    for source in ("/no/such/folder", "./folder", "there/is/no.json"):
        with pytest.raises(PlanError, match=f"MODEL={source}: no such folder or config.json"):
            read_model(source, fetch)
    with pytest.raises(PlanError, match=r"no such folder or config\.json"):
        read_model("meta-llama/Llama-3.1-8B")
    assert asked == ["meta-llama/Llama-3.1-8B"]


def test_an_unknown_architecture_is_named_with_the_nearest():
    with pytest.raises(PlanError, match=r"model_type=lama is not an architecture that is known here \(nearest: llama\)"):
        model_of("m", LLAMA | {"model_type": "lama"})


def test_an_unknown_architecture_is_planned_by_its_headers_and_said_to_be():
    read = model_of("m", LLAMA | {"model_type": "lama"}, (Tensor("model.layers.0.self_attn.q_proj.weight", (4096, 4096), "BF16"),))
    assert any(line.startswith("model_type=lama is not known here: its KV cache is counted as Llama's") for line in read.assumed)


def test_a_tensor_whose_place_is_not_known_is_said_to_be_on_every_rank():
    read = model_of("m", LLAMA, (Tensor("model.layers.0.oddity.weight", (8, 8), "BF16"), Tensor("model.other.weight", (8, 8), "BF16")))
    assert read.assumed == ("model.layers.0.oddity.weight and 1 tensors more: on every rank, since how they are divided is not known",)


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "model_type"]
)
def test_a_missing_field_is_named(name):
    with pytest.raises(PlanError, match=f"config.json: {name} is missing"):
        model_of("m", without(name))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_hidden_layers", 0, "num_hidden_layers=0 is no positive whole number"),
        ("hidden_size", -4096, "hidden_size=-4096 is no positive whole number"),
        ("vocab_size", "many", "vocab_size='many' is no positive whole number"),
        ("num_key_value_heads", 5, "num_key_value_heads=5 does not divide num_attention_heads=32"),
        ("num_attention_heads", 7, "num_key_value_heads=8 does not divide num_attention_heads=7"),
        ("kv_lora_rank", 512, "qk_nope_head_dim is missing, which latent attention"),
        ("layer_types", ["linear_attention", "full_attention"], "has a recurrent state; such models are not planned"),
        ("mamba_d_state", 16, "has a recurrent state"),
        ("index_topk", 2048, "has an index of tokens beside its KV cache"),
        ("is_encoder_decoder", True, "has an encoder"),
    ],
)
def test_an_impossible_field_is_named_with_its_value(field, value, told):
    with pytest.raises(PlanError, match=told):
        model_of("m", LLAMA | {field: value})


@pytest.mark.parametrize(
    ("quantization_config", "told"),
    [
        ({"quant_method": "awq"}, "quantization_config of awq: bits is missing"),
        ({"quant_method": "aqlm"}, "quant_method=aqlm is not known here"),
        ({"quant_method": "compressed-tensors"}, "config_groups is missing"),
    ],
)
def test_a_quantisation_that_the_config_does_not_tell_is_named(quantization_config, told):
    with pytest.raises(PlanError, match=told):
        _ = model_of("m", LLAMA | {"quantization_config": quantization_config}).parts


@pytest.mark.parametrize("content", ["not json", "[1]", '"text"'])
def test_a_damaged_config_is_said_to_be(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(PlanError, match=r"config\.json: not the config\.json of a model"):
        read_model(str(tmp_path))


def test_a_folder_without_a_config_is_said_to_be(tmp_path):
    with pytest.raises(PlanError, match=r"there is no config\.json"):
        read_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 10) + b"not json!!", struct.pack("<Q", 2**60) + b"{"])
def test_a_damaged_safetensors_file_is_named(tmp_path, content):
    folder_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(PlanError, match=r"model\.safetensors: not a safetensors file"):
        read_model(str(tmp_path))


def test_a_damaged_entry_or_index_is_named(tmp_path):
    folder_of(tmp_path, tensors={"odd": ("F3", [2])})
    with pytest.raises(PlanError, match="the header's entry odd has no shape or a type that is not known"):
        read_model(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(PlanError, match="not an index of safetensors files"):
        read_model(str(tmp_path))
