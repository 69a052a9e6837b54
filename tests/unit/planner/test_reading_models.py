"""What is read of a model: a folder, a config.json, a hub id; and what is said of files that cannot be planned."""

import contextlib
import json
import struct
from pathlib import Path

import pytest

from serving.errors import PlanError
from serving.planner.checkpoint.tensors import Tensor, read_tensors
from serving.planner.memory.fit import make_plan
from serving.planner.model import Fetched, model_of, read_model
from serving.planner.plan import PlanRequest
from tests.unit.planner.known_models import CONFIGS, gpu

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
        ("num_hidden_layers", 10**9, "num_hidden_layers=1000000000 is more than the 10000 that are planned"),
        ("layer_types", ["full_attention"] * 2, "layer_types has 2 layers, and num_hidden_layers=32"),
    ],
)
def test_an_impossible_field_is_named_with_its_value(field, value, told):
    with pytest.raises(PlanError, match=told):
        model_of("m", LLAMA | {field: value})


def test_latent_attention_without_its_sizes_is_named():
    with pytest.raises(PlanError, match="qk_nope_head_dim is missing, which latent attention"):
        model_of("m", LLAMA | {"model_type": "deepseek_v2", "kv_lora_rank": 512})


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"layer_types": ["linear_attention", "full_attention"] * 16}, "layers of the kind linear_attention"),
        ({"mamba_d_state": 16}, "a recurrent state"),
        ({"linear_num_value_heads": 32, "full_attention_interval": 4}, "a recurrent state"),  # as Qwen3-Next is published
        ({"attn_type_list": [0, 0, 1, 0]}, "a recurrent state"),  # MiniMax-Text-01
        ({"conv_L_cache": 3}, "a recurrent state"),  # LFM2
        ({"index_topk": 2048}, "an index of tokens beside its KV cache"),
        ({"is_encoder_decoder": True}, "an encoder"),
        ({"num_kv_shared_layers": 15}, "layers that share a KV cache"),  # Gemma 3n
        ({"global_head_dim": 512}, "layers whose heads are unlike those of others"),  # Gemma 4
        ({"block_configs": [{}]}, "layers whose heads are unlike those of others"),  # Nemotron-NAS
        ({"v_head_dim": 64, "head_dim": 128}, "values of another size than its keys"),
        ({"kv_lora_rank": 256}, r"latent attention \(kv_lora_rank\) that is not known here"),  # MiniCPM3
    ],
)
def test_what_is_not_a_plain_kv_cache_is_refused_with_tensors_too(fields, what):
    tensors = (Tensor("model.norm.weight", (4096,), "BF16"),)
    for files in ((), tensors):
        with pytest.raises(PlanError, match=f"model_type=llama has {what}; such models are not planned"):
            model_of("m", LLAMA | fields, files)


def test_attention_everywhere_is_planned_whatever_list_says_so():
    assert model_of("m", LLAMA | {"attn_type_list": [1] * 32, "layer_types": ["full_attention"] * 33})


WRONG = ("x", -1, 1.5, True, [], [None], {"a": 1}, float("nan"), 10**30)
FIELDS = sorted(
    {*CONFIGS["Qwen3-30B-A3B"], *CONFIGS["DeepSeek-V3"]}
    | {"sliding_window", "max_window_layers", "attention_chunk_size", "layer_types", "mlp_only_layers", "decoder_sparse_step"}
    | {"rope_scaling", "rope_parameters", "partial_rotary_factor", "model_max_length", "shared_expert_intermediate_size", "head_dim"}
    | {"quantization_config", "torch_dtype", "text_config", "num_local_experts", "architectures", "hidden_act"}
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "DeepSeek-V3"])
def test_a_field_of_a_wrong_kind_is_named_or_harmless(name, field):
    config = CONFIGS[name] | {"num_hidden_layers": 2, "use_sliding_window": True, "first_k_dense_replace": 1}
    for value in WRONG:
        with contextlib.suppress(PlanError):
            make_plan(model_of("m", config | {field: value}), PlanRequest(context=128), gpu(80), 1)


def test_a_rotary_factor_that_is_none_is_named_with_where_it_stands():
    with pytest.raises(PlanError, match=r"config.json: rope_scaling.factor=-8 is no number above 0"):
        model_of("m", LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": -8}})
    with pytest.raises(PlanError, match=r"config.json: rope_parameters.full_attention.factor='x' is no number above 0"):
        model_of("m", LLAMA | {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": "x"}}})


@pytest.mark.parametrize(
    ("quantization_config", "told"),
    [
        ({"quant_method": "awq"}, "quantization_config of awq: bits is missing"),
        ({"quant_method": "aqlm"}, "quant_method=aqlm is not known here"),
        ({"quant_method": "compressed-tensors"}, "config_groups is missing"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 1}}, "config_groups is no mapping of groups"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "quantization_config of gptq: group_size=0 is no whole number above 0"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"weight_block_size=\[128\] is no list of two whole numbers"),
        ({"quant_method": "fp8", "ignore": "lm_head"}, "ignore='lm_head' is no list of names"),
        ("fp8", "quantization_config='fp8' is no mapping"),
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


@pytest.mark.parametrize("entry", [{"odd": ("F3", [2])}, {"odd": ("F16", [-2, 4])}, {"odd": ("F16", ["a"])}, {"odd": (["F16"], [2])}])
def test_a_damaged_entry_is_named(tmp_path, entry):
    folder_of(tmp_path, tensors=entry)
    with pytest.raises(PlanError, match="the header's entry odd has no shape or a type that is not known"):
        read_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", b'{"weight_map": {"a": 1}}', b'{"weight_map": {"a": ["b"]}}'])
def test_a_damaged_index_is_named(tmp_path, content):
    (folder_of(tmp_path) / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(PlanError, match="not an index of safetensors files"):
        read_model(str(tmp_path))


def test_an_empty_tensor_takes_nothing():
    assert model_of("m", LLAMA, (Tensor("model.layers.0.self_attn.q_proj.weight", (4096, 0), "BF16"),)).parts[0].numbers == 0
