"""check_loader, check_pickles: what each of vLLM's loaders needs."""

import ast
import importlib.util
from pathlib import Path

import pytest

from serving.engine.loaders import LOADERS, check_loader, check_pickles, pickle_permission, vllms_load_format
from serving.errors import ModelUnavailable, SettingsError


@pytest.fixture
def without(monkeypatch):
    """Makes a package one that is not installed."""

    def remove(name: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == name else find(module, *rest))

    return remove


def refusal(load_format: str, on_cpu: bool = True, **options: bool) -> str:
    with pytest.raises(SettingsError) as caught:
        check_loader({"load_format": load_format}, on_cpu=on_cpu, **options)
    return str(caught.value)


def test_the_table_holds_every_format_of_the_pinned_vllm():
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "model_executor", "model_loader", "__init__.py").read_text()
    formats = next(node.value for node in ast.parse(source).body if isinstance(node, ast.Assign) and node.targets[0].id == "LoadFormats")
    assert set(LOADERS) == set(ast.literal_eval(formats.slice))


@pytest.mark.parametrize("name", ["auto", "hf", "safetensors", "mistral", "pt", "npcache", "dummy"])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_vllms_own_formats_need_nothing(name, on_cpu):
    check_loader({}, on_cpu=on_cpu)
    check_loader({"load_format": name}, on_cpu=on_cpu)


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("runai_streamer", "runai_model_streamer", "tokenport[runai]"),
        ("tensorizer", "tensorizer", "tokenport[tensorizer]"),
        ("fastsafetensors", "fastsafetensors", "tokenport[fastsafetensors]"),
        ("instanttensor", "instanttensor", "tokenport[instanttensor]"),
        ("modelexpress", "modelexpress", "modelexpress"),
    ],
)
def test_a_missing_package_is_told_with_what_to_install(without, name, package, install):
    without(package)
    line = refusal(name, on_cpu=False)
    assert line == f"load_format={name} needs the package {package.replace('_', '-')}: pip install '{install}'"


def test_streaming_from_s3_needs_the_part_for_s3(without):
    without("runai_model_streamer_s3")
    check_loader({"load_format": "runai_streamer"}, on_cpu=True)
    assert "needs the package runai-model-streamer-s3" in refusal("runai_streamer", weights_on_s3=True)


@pytest.mark.parametrize("name", [name for name, loader in LOADERS.items() if loader.not_on_cpu])
def test_what_the_cpu_cannot_use_is_refused_with_the_reason(name):
    assert refusal(name).startswith(f"load_format={name} does not work on the CPU: ")


def test_an_unknown_format_is_told_with_the_nearest():
    assert refusal("runai_steamer").endswith("did you mean runai_streamer?")


def test_an_unknown_format_may_be_another_plugins(monkeypatch):
    class Point:
        value = "other.plugin:register"

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Point()])
    check_loader({"load_format": "theirs"}, on_cpu=True)


def folder_with(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("load_format", ["auto", "hf", "safetensors", "mistral"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_alone_are_refused_with_both_ways_out(tmp_path, load_format, name):
    with pytest.raises(ModelUnavailable) as caught:
        check_pickles(folder_with(tmp_path, name), {"load_format": load_format})
    line = str(caught.value)
    assert f"as pickles only ({name})" in line
    assert f"M.from_pretrained({str(tmp_path)!r}" in line
    assert "--load-format pt" in line


@pytest.mark.parametrize("name", ["model.pth", "last.ckpt"])
def test_pickles_that_vllm_does_not_read_are_told(tmp_path, name):
    with pytest.raises(ModelUnavailable, match=f"in {name} only, which vLLM does not read"):
        check_pickles(folder_with(tmp_path, name), {})


@pytest.mark.parametrize("engine", [{}, {"load_format": "auto"}, {"load_format": "runai_streamer"}])
def test_pickles_beside_safetensors_do_no_harm(tmp_path, engine):
    check_pickles(folder_with(tmp_path, "model.safetensors", "pytorch_model.bin"), engine)


@pytest.mark.parametrize("load_format", ["pt", "npcache"])
def test_pickles_that_were_asked_for_pass_and_must_be_there(tmp_path, load_format):
    with pytest.raises(ModelUnavailable, match=f"load_format={load_format} reads"):
        check_pickles(tmp_path, {"load_format": load_format})
    check_pickles(folder_with(tmp_path, "pytorch_model.bin"), {"load_format": load_format})
    assert pickle_permission({"load_format": load_format}) == {"tokenport_pickles": True}


def test_pt_never_means_safetensors(tmp_path):
    with pytest.raises(ModelUnavailable, match="safetensors beside"):
        check_pickles(folder_with(tmp_path, "model.safetensors", "pytorch_model.bin"), {"load_format": "pt"})


def test_pt_is_called_hf_by_vllm_where_the_files_are_bin(tmp_path):
    engine = {"load_format": "pt", "dtype": "auto"}
    assert vllms_load_format(engine, folder_with(tmp_path, "pytorch_model.bin")) == {"load_format": "hf", "dtype": "auto"}
    assert vllms_load_format(engine, folder_with(tmp_path, "model.pt")) == engine
    assert vllms_load_format({}, tmp_path) == {}


def test_no_permission_goes_to_the_engine_unasked():
    assert pickle_permission({}) == {}
