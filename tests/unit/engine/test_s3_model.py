"""Models from S3: a real client and a real server process on loopback, with small files."""

import hashlib
import json
import logging
import os
import shutil
import socket
import tarfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engine import cache_folder, s3_client, s3_download
from serving.engine.fetch import LocalModel, fetch
from serving.engine.model_source import find_model
from serving.engine.s3_client import parse
from serving.engine.s3_files import needed, shards_only
from serving.engine.s3_model import fetch_archive, fetch_folder
from serving.errors import ModelUnavailable, StartError
from serving.settings import load_settings
from tests.s3_server import KEYS, S3, CuttingProxy, environment, refusing_s3, s3_server

Usage = namedtuple("Usage", "total used free")
WEIGHTS = bytes(range(256)) * 40_000
MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "empty.txt": b"",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    ".git/config": b"hidden",
    "onnx/model.json": b"other",
}
NEEDED = ["config.json", "empty.txt", "model.safetensors", "tokenizer.json"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.client.create_bucket(Bucket="models")
        yield server


@pytest.fixture(autouse=True)
def _environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(s3.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_download, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def uri(s3: S3, request: pytest.FixtureRequest) -> str:
    """A prefix with the model below it, of this test alone."""
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    put(s3, prefix, MODEL)
    return f"s3://models/{prefix}/llama"


def put(s3: S3, prefix: str, files: dict[str, bytes], **options: str) -> None:
    client = s3.client
    for name, content in files.items():
        client.put_object(Bucket="models", Key=f"{prefix}/llama/{name}", Body=content, **options)


def prefix_of(uri: str) -> str:
    return uri.split("/")[3]


def fetched(uri: str, tmp_path: Path, reports: list | None = None, *, load_format: str = "auto", **options: bool) -> Path:
    options = {"with_code": False, "with_weights": True} | options
    report = (lambda *words: reports.append(words)) if reports is not None else lambda *_: None
    return fetch_folder(parse(uri), tmp_path, report, load_format=load_format, **options)


def refusal(uri: str, tmp_path: Path, **options) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        fetched(uri, tmp_path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in line
    assert KEYS["AWS_ACCESS_KEY_ID"] not in line
    return line


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_a_model_needs_is_downloaded_and_nothing_else(uri, tmp_path):
    reports = []
    folder = fetched(uri, tmp_path, reports)
    assert names_in(folder) == NEEDED
    assert {name: (folder / name).read_bytes() for name in NEEDED} == {name: MODEL[name] for name in NEEDED}
    phases = [phase for phase, _ in reports]
    assert phases[0] == "looking into S3"
    assert set(phases[1:]) == {"downloading"}
    fractions = [fraction for _, fraction in reports[1:]]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def test_a_prefix_that_has_not_changed_is_not_downloaded_again(uri, tmp_path, s3):
    folder = fetched(uri, tmp_path)
    (folder / "mark").touch()
    assert (fetched(f"{uri}/", tmp_path) / "mark").exists()
    put(s3, prefix_of(uri), {"config.json": b"[]"})
    changed = fetched(uri, tmp_path)
    assert changed != folder
    assert (changed / "config.json").read_bytes() == b"[]"


def test_code_comes_only_with_trust_remote_code_and_the_weights_only_if_they_are_not_streamed(uri, tmp_path):
    assert "modeling.py" in names_in(fetched(uri, tmp_path, with_code=True))
    assert names_in(fetched(uri, tmp_path, with_weights=False)) == ["config.json", "empty.txt", "tokenizer.json"]


def test_pickles_come_only_when_asked_for(uri, tmp_path, s3):
    assert "pytorch_model.bin" in names_in(fetched(uri, tmp_path, load_format="pt"))
    s3.client.delete_object(Bucket="models", Key=f"{prefix_of(uri)}/llama/model.safetensors")
    line = refusal(uri, tmp_path)
    assert line.startswith(f"{uri} has its weights as pickles only (pytorch_model.bin)")
    assert "--load-format pt" in line


def test_of_the_weights_only_the_shards_of_the_index_come(uri, tmp_path, s3):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    put(s3, prefix_of(uri), {"model.safetensors.index.json": index, "model-1.safetensors": b"1"})
    assert [name for name in names_in(fetched(uri, tmp_path)) if name.endswith(".safetensors")] == ["model-1.safetensors"]
    put(s3, prefix_of(uri), {"model.safetensors.index.json": b"[]"})
    assert "model.safetensors.index.json is no index" in refusal(uri, tmp_path)


def test_a_file_is_put_together_from_parts_on_several_threads(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_download.Download.__init__, "__kwdefaults__", {"part_bytes": 1_000_003})
    assert (fetched(uri, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32", "SHA1"])
def test_every_kind_of_checksum_is_understood(uri, tmp_path, s3, algorithm):
    put(s3, prefix_of(uri), {"model.safetensors": WEIGHTS}, ChecksumAlgorithm=algorithm)
    assert (fetched(uri, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def multipart(s3: S3, key: str, content: bytes) -> None:
    client, size = s3.client, 5 * 2**20
    upload = client.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(content), size), start=1):
        body = content[start : start + size]
        answer = client.upload_part(Bucket="models", Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket="models", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("has_parts", [False, True])
def test_a_byte_changed_on_the_way_is_found(uri, tmp_path, s3, monkeypatch, has_parts):
    if has_parts:
        multipart(s3, f"{prefix_of(uri)}/llama/model.safetensors", WEIGHTS)
    receive = s3_download.Download._receive

    def damaging(self, part):
        came = receive(self, part)
        if part.object.name == "model.safetensors":
            with (self._folder / part.object.name).open("r+b") as file:
                file.seek(part.start)
                file.write(b"X")
        return came

    with monkeypatch.context() as patched:
        patched.setattr(s3_download.Download, "_receive", damaging)
        line = refusal(uri, tmp_path)
    assert line.startswith(f"{uri}/model.safetensors: what came differs from S3's ")
    assert (fetched(uri, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_connection_cut_in_the_middle_of_a_part_is_tried_again(uri, tmp_path, s3, monkeypatch):
    port = int(s3.endpoint.rsplit(":", 1)[1])
    with CuttingProxy(port, num_cut=2, after_bytes=1_000_000) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert (fetched(uri, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_that_was_interrupted_goes_on_where_it_was(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_download.Download.__init__, "__kwdefaults__", {"part_bytes": 4_000_000})
    monkeypatch.setattr(s3_download, "NUM_CONNECTIONS", 1)
    receive, received = s3_download.Download._receive, []

    def failing(self, part):
        if part.start == 8_000_000:
            raise ConnectionError("gone")
        return receive(self, part)

    def counting(self, part):
        received.append((part.object.name, part.start))
        return receive(self, part)

    with monkeypatch.context() as patched:
        patched.setattr(s3_download.Download, "_receive", failing)
        assert refusal(uri, tmp_path).startswith(f"{uri}/model.safetensors: cannot reach S3")
    monkeypatch.setattr(s3_download.Download, "_receive", counting)
    assert (fetched(uri, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert ("model.safetensors", 8_000_000) in received
    assert ("model.safetensors", 0) not in received


def test_a_download_in_which_nothing_moves_ends(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_download.Download.run, "__defaults__", (0.3,))
    monkeypatch.setattr(s3_download.Download, "_receive", lambda self, part: self._stop.wait(30) and 0)
    line = refusal(uri, tmp_path)
    assert "the download stopped (nothing came for" in line


def test_a_disk_without_room_is_told_with_both_numbers(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, cache_folder._RESERVE_BYTES + 5_000_000))
    line = refusal(uri, tmp_path)
    assert f"disk full: {uri} needs 10 MB and " in line
    assert "has 5 MB to spare" in line


def test_the_copy_in_the_cache_is_served_where_s3_cannot_be_reached(uri, tmp_path, monkeypatch, caplog):
    folder = fetched(uri, tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(s3_client, "_NUM_ATTEMPTS", 1)
        assert fetched(uri, tmp_path) == folder
        assert "the copy in the cache is served" in caplog.text
        line = refusal(uri, tmp_path / "empty")
    assert line.startswith(f"{uri}: cannot reach S3 (")


def test_a_bucket_a_prefix_or_a_configuration_that_is_not_there_is_told(uri, tmp_path, s3):
    assert refusal("s3://no-such-bucket/llama", tmp_path) == "s3://no-such-bucket/llama: there is no such bucket"
    assert "there is nothing below this prefix" in refusal("s3://models/no/such", tmp_path)
    s3.client.delete_object(Bucket="models", Key=f"{prefix_of(uri)}/llama/config.json")
    line = refusal(uri, tmp_path)
    assert f"{uri} holds no model: no config.json in it (found: .git/config, empty.txt, " in line


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", "access denied (no): the role or user needs s3:ListBucket"),
        (403, "InvalidAccessKeyId", "S3 does not accept the AWS credentials (InvalidAccessKeyId)"),
        (400, "ExpiredToken", "S3 does not accept the AWS credentials (ExpiredToken)"),
        (403, "InvalidObjectState", "is archived (Glacier)"),
        (400, "Teapot", "S3 answers Teapot: no"),
    ],
)
def test_what_s3_refuses_is_told_in_one_line(tmp_path, monkeypatch, status, code, told):
    with refusing_s3(status, code) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        line = refusal("s3://models/llama", tmp_path)
    assert line.startswith("s3://models/llama")
    assert told in line


def test_no_credentials_are_told(uri, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refusal(uri, tmp_path).startswith(f"{uri}: no AWS credentials: give the endpoint's execution role, or ")


def test_a_wrong_endpoint_is_told_without_its_password(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_client, "_NUM_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:password@127.0.0.1:1")
    assert "password" not in refusal(uri, tmp_path)


def test_credentials_are_not_logged_even_at_debug(uri, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    fetched(uri, tmp_path)
    assert "Signature" not in caplog.text
    assert KEYS["AWS_ACCESS_KEY_ID"] not in caplog.text


def test_an_archive_comes_as_one_file(s3, tmp_path):
    s3.client.put_object(Bucket="models", Key="archives/llama.tar.gz", Body=b"bytes")
    file = fetch_archive(parse("s3://models/archives/llama.tar.gz"), tmp_path, lambda *_: None)
    assert (file.name, file.read_bytes()) == ("llama.tar.gz", b"bytes")
    with pytest.raises(ModelUnavailable, match=r"^s3://models/archives/no\.tar: there is no such object$"):
        fetch_archive(parse("s3://models/archives/no.tar"), tmp_path, lambda *_: None)


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/passwd", "a\\b", "a\nb"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(ModelUnavailable, match="has no name that a file can have"):
        needed(["config.json", name], "auto", with_code=False)


@pytest.mark.parametrize(
    ("names", "load_format", "weights"),
    [
        (["model.safetensors", "consolidated.safetensors"], "auto", ["model.safetensors"]),
        (["model.safetensors", "consolidated.safetensors"], "mistral", ["consolidated.safetensors"]),
        (["consolidated.safetensors"], "auto", ["consolidated.safetensors"]),
        (["a.safetensors", "a.bin", "a.pt", "a.pth", "a.gguf", "tf.h5"], "auto", ["a.safetensors"]),
        (["a.safetensors", "a.bin", "a.pt"], "pt", ["a.pt"]),
        (["rank-0-of-2/a.safetensors", "checkpoint-5/a.safetensors"], "auto", ["rank-0-of-2/a.safetensors"]),
    ],
)
def test_no_weight_comes_twice(names, load_format, weights):
    assert needed(names, load_format, with_code=True) == weights


def test_an_index_that_names_none_of_the_files_chooses_none():
    assert shards_only(["a.safetensors"], ["b.safetensors"]) == ["a.safetensors"]


def brought(uri: str, tmp_path: Path, *words: str) -> LocalModel:
    settings = load_settings([uri, "--cache-dir", str(tmp_path), *words], {"HOME": str(tmp_path)})
    return fetch(find_model(settings.model, embedded_allowed=False), settings, lambda *_: None)


def test_a_streamed_model_is_a_folder_without_weights_and_where_they_are(uri, tmp_path):
    model = brought(uri, tmp_path, "--load-format", "runai_streamer")
    assert model.weights == uri
    assert names_in(Path(model.location)) == ["config.json", "empty.txt", "tokenizer.json"]
    assert brought(uri, tmp_path).weights == ""


def archived(s3: S3, tmp_path: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", "model")
    s3.client.upload_file(str(tmp_path / "a.tar.gz"), "models", f"{tmp_path.name}/llama.tar.gz")
    return f"s3://models/{tmp_path.name}/llama.tar.gz"


def test_an_archive_on_s3_is_downloaded_and_unpacked(s3, tmp_path):
    uri = archived(s3, tmp_path, {"config.json": b"{}", "model.safetensors": b"w"})
    assert find_model(uri, embedded_allowed=False).served_name == "llama"
    assert names_in(Path(brought(uri, tmp_path / "cache").location)) == ["config.json", "model.safetensors"]


def test_an_archive_that_brings_code_is_refused_unless_the_code_is_not_wanted(s3, tmp_path):
    uri = archived(s3, tmp_path, {"config.json": b"{}", "code/inference.py": b"pass"})
    with pytest.raises(StartError, match=f"^{uri} brings code/inference.py, which is run from a folder only"):
        brought(uri, tmp_path / "cache")
    assert "config.json" in names_in(Path(brought(uri, tmp_path / "cache", "--custom-code", "false").location))
