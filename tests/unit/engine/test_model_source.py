"""find_model: which model a name, or no name, means."""

from pathlib import Path

import pytest

from serving.engine.model_source import ModelSource, find_model
from serving.errors import ModelUnavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def _named(model: str) -> ModelSource:
    return find_model(model, embedded_allowed=False)


def test_a_folder_is_served_under_its_own_name(folder: Path) -> None:
    assert _named(str(folder)) == ModelSource("folder", str(folder), "llama")
    assert _named(f"{folder}/") == ModelSource("folder", str(folder), "llama")


def test_a_relative_folder_and_one_below_the_home_directory_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert _named("~/llama").location == str(folder)
    monkeypatch.chdir(folder.parent)
    assert _named("llama").location == str(folder)
    monkeypatch.chdir(folder)
    assert _named(".") == ModelSource("folder", str(folder), "llama")


def test_a_link_to_a_folder_keeps_the_links_name(folder: Path) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder)
    assert _named(str(link)) == ModelSource("folder", str(link), "current")


def test_a_folder_without_a_configuration_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no config.json in it \(found: nothing\)"):
        _named(str(tmp_path))
    for name in "gfedcba":
        (tmp_path / name).touch()
    with pytest.raises(ModelUnavailable, match=r"no config.json in it \(found: a, b, c, d, e and 2 more\)"):
        _named(str(tmp_path))


@pytest.mark.parametrize("name", ["model.gguf", "config.json"])
def test_a_file_is_an_error(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(ModelUnavailable, match="is a file"):
        _named(str(folder / name))


@pytest.mark.parametrize("model", ["/no/such", "./such", "../such", "~/no-such-folder", "a/b/c", "models\\llama", ".", "a/b/"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"no such folder|no config\.json"):
        _named(model)


@pytest.mark.parametrize("model", ["gpt2", "org/name", "HuggingFaceTB/SmolLM2-135M-Instruct", "a_b/c.d-e"])
def test_other_names_are_names_on_the_hub(model: str) -> None:
    assert _named(model) == ModelSource("hub", model, model)


@pytest.mark.parametrize("model", ["", " ", "org/", "org/na me", "org/name@main", "modèle", "org/name\n", "x" * 5000 + "!", "a\0b"])
def test_names_with_other_characters_are_errors(model: str) -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder nor a hub id"):
        _named(model)


def test_a_url_is_an_error_that_says_so() -> None:
    with pytest.raises(ModelUnavailable, match="is a URL"):
        _named("https://user:word@host/model")


def test_a_url_is_told_without_its_credentials() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        _named("gs://user:word@bucket/model")
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "location", "name"),
    [
        ("s3://bucket/models/llama", "s3://bucket/models/llama", "llama"),
        ("s3://bucket/models/llama/", "s3://bucket/models/llama", "llama"),
        ("s3://my-bucket", "s3://my-bucket/", "my-bucket"),
        ("s3://bucket/llama.tar.gz", "s3://bucket/llama.tar.gz", "llama"),
    ],
)
def test_an_s3_location_is_served_under_its_last_part(uri: str, location: str, name: str) -> None:
    assert _named(uri) == ModelSource("s3", location, name)


@pytest.mark.parametrize("uri", ["s3://", "s3:///model", "s3://B/model", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/a\nb"])
def test_what_is_no_s3_location_is_an_error(uri: str) -> None:
    with pytest.raises(ModelUnavailable, match="is no S3 location"):
        _named(uri)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar"])
def test_an_archive_is_served_under_its_name(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"llama{suffix}"
    archive.touch()
    assert _named(str(archive)) == ModelSource("archive", str(archive), "llama")


def test_an_archive_alone_in_a_folder_is_the_model(tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.touch()
    assert find_model(None, embedded_allowed=True, mounted=tmp_path) == ModelSource("archive", str(archive), "model")
    (tmp_path / "README.md").touch()
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        find_model(None, embedded_allowed=True, mounted=tmp_path)


def test_the_embedded_model_can_be_named_even_where_it_is_not_taken_unasked() -> None:
    assert _named("smollm2-135m-instruct") == ModelSource("embedded", "", "smollm2-135m-instruct")


def test_without_a_name_the_mounted_folder_is_taken_first(folder: Path) -> None:
    mounted = folder.rename(folder.with_name("model"))
    assert find_model(None, embedded_allowed=True, mounted=mounted) == ModelSource("folder", str(mounted), "model")


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_mounted_model_the_embedded_one_is_taken_if_allowed(tmp_path: Path, exists: bool) -> None:
    mounted = tmp_path if exists else tmp_path / "model"
    assert find_model(None, embedded_allowed=True, mounted=mounted).kind == "embedded"
    with pytest.raises(ModelUnavailable, match=f"no model: set TOKENPORT_MODEL to a local folder or a hub id, or mount one at {mounted}"):
        find_model(None, embedded_allowed=False, mounted=mounted)


def test_an_incomplete_mounted_model_is_an_error_even_where_the_embedded_one_is_allowed(folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no config.json in it \(found: llama\)"):
        find_model(None, embedded_allowed=True, mounted=folder.parent)


def test_a_mounted_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    # A name that is too long, since root may read everything else.
    with pytest.raises(ModelUnavailable, match="cannot read the model folder"):
        find_model(None, embedded_allowed=True, mounted=tmp_path / ("x" * 300))
