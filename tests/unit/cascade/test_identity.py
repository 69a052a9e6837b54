import json

import pytest

from serving.cascade.identity import chat_template_hash, model_hash, sampling_hash
from serving.errors import CascadeError

WEIGHTS = bytes(range(256)) * 8192  # 2 MB


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path


def test_a_copy_of_a_model_has_the_same_hash(folder):
    before = model_hash(folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    assert model_hash(folder) == before
    assert before.startswith("sha256:")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_another_configuration_tokenizer_or_default_sampling_is_another_model(folder, name):
    before = model_hash(folder)
    (folder / name).write_text('{"a": 1}')
    assert model_hash(folder) != before


def test_other_weights_of_the_same_size_are_another_model(folder):
    before = model_hash(folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS[: 1 << 20] + bytes(1 << 19) + WEIGHTS[: 1 << 19])
    assert model_hash(folder) != before


def test_weights_under_another_name_or_in_more_files_are_another_model(folder):
    before = model_hash(folder)
    (folder / "more.safetensors").write_bytes(b"x")
    assert model_hash(folder) != before


def test_what_is_no_part_of_the_model_does_not_count(folder):
    before = model_hash(folder)
    (folder / "README.md").write_text("x")
    (folder / "tokenizer_config.json").write_text("{}")
    assert model_hash(folder) == before


def test_the_chat_template_has_a_hash_of_its_own_wherever_it_lies(folder):
    inside = chat_template_hash(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert chat_template_hash(folder) == inside
    (folder / "chat_template.jinja").write_text("{{ other }}")
    assert chat_template_hash(folder) != inside


def test_the_order_of_sampling_settings_does_not_count_their_values_do():
    assert sampling_hash({"temperature": 0, "top_p": 1}) == sampling_hash({"top_p": 1, "temperature": 0})
    assert sampling_hash({"temperature": 0}) != sampling_hash({"temperature": 0.5})


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(CascadeError, match="holds no model"):
        model_hash(tmp_path)
    with pytest.raises(CascadeError, match="cannot read the model"):
        model_hash(tmp_path / "none")
