"""Model folders made up of small files; a shared memory file system and a driver as functions' arguments."""

import json
import struct
from collections import namedtuple
from pathlib import Path

import pytest

from serving.engine import preflight
from serving.engine.preflight import check_driver, check_shared_memory, check_start, check_template
from serving.errors import ModelUnavailable, SettingsError, StartError

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
}


def safetensors(tensor_bytes: int) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [tensor_bytes], "data_offsets": [0, tensor_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(tensor_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors(16))
    return tmp_path


def refusal(folder: Path, error: type[StartError] = ModelUnavailable, **engine) -> str:
    with pytest.raises(error) as caught:
        check_start(engine, str(folder), on_cpu=True)
    return str(caught.value)


def test_a_whole_model_passes(folder):
    check_start({}, str(folder), on_cpu=True)


def test_a_hub_id_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_start({}, "org/name", on_cpu=True)


def test_a_config_that_is_no_json_is_told_with_file_and_place(folder):
    (folder / "config.json").write_text('{"model_type": ')
    line = refusal(folder)
    assert "config.json is not JSON" in line
    assert "line 1" in line
    assert "\n" not in line


def test_a_config_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[]")
    assert "config.json is not a JSON object" in refusal(folder)


@pytest.mark.parametrize("left", [[], ["tokenizer_config.json"]])
def test_a_model_without_tokenizer_files_is_refused(folder, left):
    (folder / "tokenizer.json").unlink()
    for name in left:
        (folder / name).write_text("{}")
    assert "has no tokenizer" in refusal(folder)


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "vocab.txt", "qwen.tiktoken"])
def test_every_kind_of_tokenizer_counts(folder, name):
    (folder / "tokenizer.json").rename(folder / name)
    check_start({}, str(folder), on_cpu=True)


@pytest.mark.parametrize("engine", [{"tokenizer": "/other"}, {"skip_tokenizer_init": True}, {"trust_remote_code": True}])
def test_a_tokenizer_from_elsewhere_needs_no_file(folder, engine):
    (folder / "tokenizer.json").unlink()
    check_start(engine, str(folder), on_cpu=True)


def test_heads_that_cannot_be_divided_are_told_with_the_sizes_that_can(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "granite"}))
    line = refusal(folder, SettingsError, tensor_parallel_size=2)
    assert "tensor_parallel_size=2" in line
    assert "9 attention heads, 3 KV heads and an MLP of 1536" in line
    # 9 ranks would divide the heads, but not the MLP.
    assert "sizes that can: 1, 3;" in line


def test_heads_that_cannot_be_divided_pass_where_zeros_can_fill_them_up(folder):
    check_start({"tensor_parallel_size": 2}, str(folder), on_cpu=True)


def test_a_size_that_fits_passes(folder):
    check_start({"tensor_parallel_size": 3}, str(folder), on_cpu=True)


def test_of_an_unusual_architecture_only_the_heads_are_judged(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "foo"}))
    check_start({"tensor_parallel_size": 9}, str(folder), on_cpu=True)
    assert "sizes that can: 1, 3, 9" in refusal(folder, SettingsError, tensor_parallel_size=4)


def test_the_text_part_of_a_multimodal_model_is_what_is_divided(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vl", "text_config": CONFIG}))
    assert "sizes that can: 1, 3" in refusal(folder, SettingsError, tensor_parallel_size=2)


def test_kv_heads_fewer_than_the_ranks_are_copied_to_equal_numbers_of_ranks(folder):
    shape = {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 1024}
    (folder / "config.json").write_text(json.dumps(CONFIG | shape))
    check_start({"tensor_parallel_size": 16}, str(folder), on_cpu=True)


def test_no_weights_at_all_are_told(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refusal(folder)


@pytest.mark.parametrize("load_format", ["dummy", "runai_streamer"])
def test_weights_are_not_looked_at_if_the_loader_takes_them_from_elsewhere(folder, load_format):
    (folder / "model.safetensors").unlink()
    check_start({"load_format": load_format}, str(folder), on_cpu=True)


def test_a_truncated_file_is_named_with_both_sizes(folder):
    whole = safetensors(1000)
    (folder / "model.safetensors").write_bytes(whole[:-100])
    line = refusal(folder)
    assert f"model.safetensors is truncated: it has {len(whole) - 100} bytes, its header says {len(whole)}" in line


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8) + b"nonsense", b"\xff" * 64, struct.pack("<Q", 2) + b"[]"])
def test_a_file_without_a_header_is_named(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is no safetensors file" in refusal(folder)


def test_a_pointer_of_git_lfs_is_recognised(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refusal(folder)


def test_a_shard_that_the_index_names_and_that_is_missing_is_named(folder):
    names = {f"layer.{number}": f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").write_bytes(safetensors(8))
    line = refusal(folder)
    assert "1 of the 3 files" in line
    assert "model-00002-of-00003.safetensors" in line


def test_an_index_that_names_nothing_is_refused(folder):
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "weight_map" in refusal(folder)


def test_files_beside_those_of_the_index_are_not_looked_at(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    (folder / "consolidated.safetensors").write_bytes(b"something else")
    check_start({}, str(folder), on_cpu=True)


Usage = namedtuple("Usage", "total used free")


def test_dockers_shared_memory_is_too_small_for_several_ranks(tmp_path, monkeypatch, folder):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage(64 << 20, 0, 64 << 20))
    with pytest.raises(StartError) as caught:
        check_shared_memory(tmp_path)
    assert "64 MiB free, 240 MiB needed" in str(caught.value)
    assert "--shm-size=1g" in str(caught.value)
    check_start({}, str(folder), on_cpu=True)
    with pytest.raises(StartError, match="shm-size"):
        check_start({"tensor_parallel_size": 3}, str(folder), on_cpu=True)


def test_shared_memory_that_is_really_too_small_is_found_by_asking_the_file_system(tmp_path):
    with pytest.raises(StartError, match="too small"):
        check_shared_memory(tmp_path, needed_bytes=1 << 60)
    check_shared_memory(tmp_path, needed_bytes=1)
    check_shared_memory(tmp_path / "missing", needed_bytes=1 << 60)


HEADER = "| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: {} |"


def test_a_driver_older_than_cuda_13_is_told_with_what_to_set_on_sagemaker():
    with pytest.raises(StartError) as caught:
        check_driver(HEADER.format("12.4"))
    assert "550.54.14 is older than the 580" in str(caught.value)
    assert "InferenceAmiVersion to al2023-ami-sagemaker-inference-gpu-4-1" in str(caught.value)


@pytest.mark.parametrize(
    "printed",
    ["| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0 |", HEADER.format("13.0"), "", "no devices were found"],
    ids=["new driver", "forward compatibility", "no nvidia-smi", "no device"],
)
def test_a_driver_that_runs_cuda_13_or_does_not_answer_passes(printed):
    check_driver(printed)


def test_a_template_that_does_not_parse_is_told_with_its_line(tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text("{% for message in messages %}\n{{ message.content }\n{% endfor %}")
    with pytest.raises(SettingsError) as caught:
        check_template(str(file))
    assert "chat.jinja does not parse: line 2" in str(caught.value)


def test_a_template_file_that_is_missing_is_told():
    with pytest.raises(SettingsError, match=r"cannot read /no/such/chat\.jinja: No such file"):
        check_template("/no/such/chat.jinja")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}",
        "template_chatml.jinja",
        "{% for m in messages %}{% if m %}{% continue %}{% endif %}{% endfor %}",
        "{% generation %}{{ messages }}{% endgeneration %}",
    ],
    ids=["text", "a name that may be one of vLLM's", "loop controls", "Transformers' own tag"],
)
def test_templates_that_the_engine_would_take_pass(template):
    check_template(template)


def test_a_template_as_text_that_does_not_parse_is_told():
    with pytest.raises(SettingsError, match="chat_template does not parse"):
        check_template("{% for %}")
