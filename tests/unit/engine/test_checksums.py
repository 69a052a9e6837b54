"""verify: a folder against the lists in it."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from serving.engine.checksums import verify
from serving.errors import ModelUnavailable

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "code/inference.py": b"pass\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def sums(folder: Path) -> None:
    answer = subprocess.run(["sha256sum", *FILES], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(answer.stdout)


def manifest(folder: Path, size_name: str = "bytes") -> None:
    files = {name: {size_name: len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in FILES.items()}
    (folder / "tokenport-manifest.json").write_text(json.dumps({"files": files}))


def check(folder: Path, with_hashes: bool = True) -> None:
    verify(folder, with_hashes=with_hashes).wait()


def refusal(folder: Path, with_hashes: bool = True) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        check(folder, with_hashes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", [sums, manifest, lambda folder: manifest(folder, "size_bytes"), lambda folder: None])
def test_a_folder_that_is_what_its_list_says_passes(folder, make):
    make(folder)
    check(folder)


def test_a_name_on_the_hub_has_no_list():
    assert verify(Path("org/name"), with_hashes=True).num_files == 0


@pytest.mark.parametrize("make", [sums, manifest])
@pytest.mark.parametrize("name", FILES)
def test_every_file_that_differs_is_named(folder, make, name):
    make(folder)
    (folder / name).write_bytes(bytes(reversed(FILES[name])))
    line = refusal(folder)
    assert line.startswith(f"checksum mismatch: {folder / name} ")


def test_small_files_are_compared_before_anything_starts(folder):
    sums(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelUnavailable, match=r"checksum mismatch: .*config\.json"):
        verify(folder, with_hashes=True)


def test_a_mismatch_of_the_weights_is_known_without_waiting(folder):
    sums(folder)
    (folder / "model.safetensors").write_bytes(b"weighty")
    verification = verify(folder, with_hashes=True)
    with pytest.raises(ModelUnavailable) as caught:
        verification.wait()
    assert verification.failure() is caught.value


def test_without_hashes_sizes_are_compared_all_the_same(folder):
    manifest(folder)
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    check(folder, with_hashes=False)
    (folder / "model.safetensors").write_bytes(b"weight")
    assert "has 6 bytes, and the list of the model's files says 7" in refusal(folder, with_hashes=False)


def test_a_manifest_of_sizes_alone_compares_sizes(folder):
    (folder / "tokenport-manifest.json").write_text(json.dumps({"files": {"model.safetensors": 8}}))
    assert "has 7 bytes" in refusal(folder)


@pytest.mark.parametrize("make", [sums, manifest])
def test_a_listed_file_that_is_missing_is_named(folder, make):
    make(folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is in the list of the model's files, and cannot be read" in refusal(folder)


@pytest.mark.parametrize("make", [sums, manifest])
def test_of_a_folder_from_which_files_were_left_out_the_others_are_compared(folder, make):
    make(folder)
    (folder / "code" / "inference.py").unlink()
    verify(folder, with_hashes=True, is_whole=False).wait()
    (folder / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ModelUnavailable, match=r"checksum mismatch: .*model\.safetensors"):
        verify(folder, with_hashes=True, is_whole=False).wait()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_list_cannot_name_files_elsewhere(folder, name):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    assert "is not in its folder" in refusal(folder)


@pytest.mark.parametrize("content", [b"hello\n", b"\xff\xfe", b"abc  model.safetensors\n"])
def test_sums_that_are_none_are_refused(folder, content):
    (folder / "SHA256SUMS").write_bytes(content)
    assert "SHA256SUMS" in refusal(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": []}', '{"files": {"a": "b"}}'])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "tokenport-manifest.json").write_text(content)
    assert "is no manifest of files" in refusal(folder)


def test_many_files_are_compared_by_several_threads(folder):
    content = {f"model-{number}.safetensors": bytes([number]) * 1000 for number in range(20)}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items()]
    (folder / "SHA256SUMS").write_text("".join(lines))
    check(folder)
    (folder / "model-7.safetensors").write_bytes(bytes(1000))
    assert "model-7.safetensors" in refusal(folder)
