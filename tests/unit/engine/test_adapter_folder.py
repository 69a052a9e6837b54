"""Where an adapter may be, and what its folder must hold. What the engine makes of bad ones is in tests/process."""

import json
from pathlib import Path

import pytest

from serving.engine.adapter_folder import check_folder, find_folder
from serving.errors import InvalidRequest

HEADER = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def adapter(root: Path) -> Path:
    folder = root / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return folder


def refusal(folder: Path, root: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_folder(folder, [root], 8)
    assert caught.value.param == "src"
    return caught.value.message


def test_a_folder_under_a_root_is_found_and_its_adapter_accepted(root, adapter):
    assert find_folder(str(adapter), [Path("/nowhere"), root]) == adapter
    assert find_folder(f"{root}/../root/adapter/", [root]) == adapter
    check_folder(adapter, [root], 8)


@pytest.mark.parametrize(
    ("src", "reason"),
    [
        ("someone/lora", "not an absolute path"),
        ("s3://bucket/lora", "not an absolute path"),
        ("~/lora", "not an absolute path"),
        ("/a\0b", "not an absolute path"),
        ("{root}/../other", "is not under"),
        ("/etc", "is not under"),
        ("{root}-twin", "is not under"),
        ("{root}/link", "is not under"),
        ("{root}/loop/x", "is not under|cannot be followed|does not exist"),
        ("{root}/missing", "does not exist"),
        ("{root}/adapter/adapter_config.json", "is not a folder"),
        ("{root}/" + "x" * 5000, "File name too long"),
    ],
)
def test_other_places_are_refused(root, adapter, src, reason):
    (root / "link").symlink_to("/etc")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(InvalidRequest, match=reason) as caught:
        find_folder(src.format(root=root), [root])
    assert caught.value.param == "src"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_that_is_a_link_out_of_the_roots_is_refused(root, adapter, tmp_path, name):
    (tmp_path / name).write_bytes((adapter / name).read_bytes())
    (adapter / name).unlink()
    (adapter / name).symlink_to(tmp_path / name)
    assert "is a link to somewhere not under" in refusal(adapter, root)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "r is None"),
        ('{"r": true}', "r is True"),
        ('{"r": 0}', "r is 0"),
        ('{"r": "8"}', "r is '8'"),
        ('{"r": 9}', "at most 8"),
        ('{"r": 8, "peft_type": "PROMPT_TUNING"}', "peft_type is 'PROMPT_TUNING'"),
    ],
)
def test_a_config_that_says_nothing_useful_is_refused(root, adapter, config, reason):
    (adapter / "adapter_config.json").write_text(config)
    assert reason in refusal(adapter, root)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"", "not a safetensors file"),
        (b"\x80\x04garbage of a pickle", "not a safetensors file"),
        (WEIGHTS[:20], "not a safetensors file"),
        ((1 << 40).to_bytes(8, "little"), "not a safetensors file"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        ((2).to_bytes(8, "little") + b"[]", "holds no tensors"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(root, adapter, weights, reason):
    (adapter / "adapter_model.safetensors").write_bytes(weights)
    assert reason in refusal(adapter, root)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_is_named_as_the_reason(root, adapter, name):
    (adapter / "adapter_model.safetensors").rename(adapter / name)
    assert f"{name} and no adapter_model.safetensors: a pickle may run code" in refusal(adapter, root)
