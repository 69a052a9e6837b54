"""unpack: archives made here, honest and not."""

import gzip
import io
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

from serving.engine import cache_folder
from serving.engine.archive import unpack
from serving.errors import ModelUnavailable

Usage = namedtuple("Usage", "total used free")


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


MODEL = [member("config.json", b"{}"), member("model.safetensors", b"weights")]


def archive(folder: Path, members: list[tuple[tarfile.TarInfo, bytes]], name: str = "llama.tar.gz") -> Path:
    file = folder / name
    with tarfile.open(file, "w" if name.endswith(".tar") else "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file


def unpacked(file: Path, tmp_path: Path, reports: list | None = None) -> Path:
    return unpack(file, tmp_path / "cache", lambda *words: reports.append(words) if reports is not None else None)


def refusal(file: Path, tmp_path: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        unpacked(file, tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "cache" / "models").glob("*") if not path.name.startswith(".")] == []
    return str(caught.value)


@pytest.mark.parametrize("name", ["llama.tar.gz", "llama.tgz", "llama.tar"])
def test_a_model_comes_out_of_its_archive_with_progress(tmp_path, name):
    reports = []
    folder = unpacked(archive(tmp_path, MODEL, name), tmp_path, reports)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"config.json": b"{}", "model.safetensors": b"weights"}
    assert reports[-1][0] == "unpacking"
    assert 0 <= reports[-1][1] <= 1


@pytest.mark.parametrize("top", ["model", "./model", "a/b"])
def test_a_single_folder_at_the_top_is_descended(tmp_path, top):
    folder = unpacked(archive(tmp_path, [member(f"{top}/config.json", b"{}"), member(f"{top}/x", b"y")]), tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "x"]


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path):
    file = archive(tmp_path, MODEL)
    first = unpacked(file, tmp_path)
    (first / "mark").touch()
    assert (unpacked(file, tmp_path) / "mark").exists()
    second = unpacked(archive(tmp_path, [member("config.json", b"[1]"), member("b", b"")]), tmp_path)
    assert second != first
    assert (second / "config.json").read_bytes() == b"[1]"


def test_what_an_interrupted_process_left_is_thrown_away(tmp_path):
    file = archive(tmp_path, MODEL)
    folder = unpacked(file, tmp_path)
    left = folder.with_name(f".{folder.name}.partial")
    folder.rename(left)
    (left / "stale").touch()
    assert not (unpacked(file, tmp_path) / "stale").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", "a\\..\\out"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    assert "leads out of it" in refusal(archive(tmp_path, [*MODEL, member(name, b"x")]), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
def test_a_link_that_leads_out_is_refused(tmp_path, kind, target):
    assert "leads out of it" in refusal(archive(tmp_path, [*MODEL, member("link", kind=kind, link=target)]), tmp_path)


def test_a_link_to_nothing_or_to_a_folder_is_refused(tmp_path):
    for target in ("missing", "folder"):
        members = [*MODEL, member("folder/x", b"x"), member("link", kind=tarfile.SYMTYPE, link=target)]
        assert f"link is a link to {target}, which is no file in it" in refusal(archive(tmp_path, members), tmp_path)


def test_a_link_within_the_archive_becomes_a_file(tmp_path):
    links = [member("snapshot/w", kind=tarfile.SYMTYPE, link="../model.safetensors"), member("h", kind=tarfile.LNKTYPE, link="config.json")]
    folder = unpacked(archive(tmp_path, MODEL + links), tmp_path)
    assert (folder / "snapshot" / "w").read_bytes() == b"weights"
    assert (folder / "h").read_bytes() == b"{}"
    assert not (folder / "snapshot" / "w").is_symlink()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(tmp_path, kind):
    assert "null is neither a file nor a folder" in refusal(archive(tmp_path, [*MODEL, member("null", kind=kind)]), tmp_path)


def test_a_bomb_is_stopped_before_it_fills_the_disk(tmp_path, monkeypatch):
    file = archive(tmp_path, [*MODEL, member("zeros", bytes(50_000_000))])
    assert file.stat().st_size < 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, cache_folder._RESERVE_BYTES + 10_000_000))
    assert "what is in it does not fit: 10 MB are left" in refusal(file, tmp_path)


def test_an_archive_larger_than_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, cache_folder._RESERVE_BYTES))
    assert "and" in (told := refusal(archive(tmp_path, MODEL), tmp_path))
    assert told.startswith("disk full: ")


@pytest.mark.parametrize("keep", [0, 10, -4, -30])
def test_a_cut_archive_is_told(tmp_path, keep):
    file = archive(tmp_path, [*MODEL, member("noise", bytes(range(256)) * 400)])
    file.write_bytes(file.read_bytes()[:keep])
    assert "cannot unpack" in refusal(file, tmp_path)


def test_a_flipped_bit_is_found_by_gzips_checksum(tmp_path):
    file = archive(tmp_path, MODEL)
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[content.index(b"weights")] ^= 1
    whole = bytearray(gzip.compress(bytes(content)))
    whole[-8:-4] = file.read_bytes()[-8:-4]
    file.write_bytes(whole)
    assert "CRC check failed" in refusal(file, tmp_path)


@pytest.mark.parametrize("content", [b"PK\3\4 a zip", b"version https://git-lfs.github.com/spec/v1"])
def test_what_is_no_archive_is_told(tmp_path, content):
    file = tmp_path / "model.tar.gz"
    file.write_bytes(content)
    assert "Not a gzipped file" in refusal(file, tmp_path)


def test_an_empty_archive_is_told(tmp_path):
    assert "there is nothing in it" in refusal(archive(tmp_path, []), tmp_path)


def test_an_archive_that_is_gone_is_told(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"cannot read .*: No such file"):
        unpacked(tmp_path / "model.tar", tmp_path)
