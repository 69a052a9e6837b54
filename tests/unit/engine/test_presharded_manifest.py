import json
from pathlib import Path

import pytest

from serving.engine.presharded.manifest import LOAD_FORMAT, MANIFEST, Presharded, presharded_arguments, rank_folder, read_presharded
from serving.errors import ModelUnavailable, SettingsError

TWO_RANKS = Presharded(tensor_parallel_size=2, dtype="bfloat16", quantization="int8", engine_version="0.32.0")


def written(folder: Path, presharded: Presharded = TWO_RANKS) -> Path:
    (folder / MANIFEST).write_text(json.dumps({"files": {}, **presharded.to_manifest()}))
    for rank in range(presharded.tensor_parallel_size):
        (folder / rank_folder(rank, presharded.tensor_parallel_size)).mkdir()
    return folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_presharded(written(tmp_path)) == TWO_RANKS


def test_a_folder_without_manifest_and_one_that_is_only_quantised_are_not_presharded(tmp_path: Path) -> None:
    assert read_presharded(tmp_path) is None
    (tmp_path / MANIFEST).write_text(json.dumps({"files": {}}))
    assert read_presharded(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"presharded": {"ranks": 2}}', '{"presharded": 2}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ModelUnavailable, match=MANIFEST):
        read_presharded(tmp_path)


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    (written(tmp_path) / "rank-1-of-2").rmdir()
    with pytest.raises(ModelUnavailable, match="lacks rank-1-of-2"):
        read_presharded(tmp_path)


@pytest.mark.parametrize(
    "user", [{"tensor_parallel_size": 2}, {"tensor_parallel_size": "auto"}, {"tensor_parallel_size": 2, "dtype": "auto"}]
)
def test_settings_that_match_load_the_ranks(user: dict) -> None:
    arguments = presharded_arguments(TWO_RANKS, {**user, "quantization": "int8", "max_num_seqs": 4}, "0.32.0")
    assert arguments == {"tensor_parallel_size": 2, "dtype": "bfloat16", "load_format": LOAD_FORMAT, "max_num_seqs": 4}


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({}, "tensor_parallel_size is 1 and was 2"),
        ({"tensor_parallel_size": 4}, "tensor_parallel_size is 4 and was 2"),
        ({"tensor_parallel_size": 2, "dtype": "float16"}, "dtype is float16 and was bfloat16"),
        ({"tensor_parallel_size": 2, "quantization": "fp8"}, "quantization is fp8 and was int8"),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, "pipeline_parallel_size is set"),
        ({"tensor_parallel_size": 2, "enable_expert_parallel": True}, "enable_expert_parallel is set"),
        ({"tensor_parallel_size": 2, "hf_overrides": {"rope_theta": 1}}, "hf_overrides is set"),
        ({"tensor_parallel_size": 2, "load_format": "dummy"}, "load_format=dummy"),
    ],
)
def test_a_difference_is_refused_by_its_name(user: dict, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        presharded_arguments(TWO_RANKS, user, "0.32.0")


def test_another_engine_is_refused_since_its_parameters_may_differ() -> None:
    with pytest.raises(SettingsError, match=r"vLLM is 0\.33\.0 and was 0\.32\.0"):
        presharded_arguments(TWO_RANKS, {"tensor_parallel_size": 2}, "0.33.0")


def test_all_differences_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"tensor_parallel_size.*; dtype.*"):
        presharded_arguments(TWO_RANKS, {"dtype": "float16"}, "0.32.0")
