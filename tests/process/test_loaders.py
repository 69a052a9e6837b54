"""vLLM's other loaders and models from elsewhere, in the real program: what is refused at once, and one real start that streams from S3."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from serving.engine.embedded_model import ensure_model
from tests.conftest import ROOT, free_port, start_server
from tests.s3_server import environment, s3_server

AT_ONCE_S = 30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def told_at_once(tmp_path: Path, *words: object, **settings: str) -> str:
    """The one line of a start that ends before vLLM is imported."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TOKENPORT_PORT": str(free_port()), **settings}
    command = [sys.executable, "-m", "serving", "serve", *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=AT_ONCE_S)
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


def test_pickles_are_refused_with_both_ways_out(tmp_path, model):
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    line = told_at_once(tmp_path, model)
    assert f"tokenport: {model} has its weights as pickles only (pytorch_model.bin), which can run code" in line
    assert ".save_pretrained('OUT')" in line
    assert "--load-format pt" in line


def test_a_file_that_is_not_what_its_list_says_is_named(tmp_path, model):
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  config.json\n")
    assert f"tokenport: checksum mismatch: {model}/config.json has SHA-256" in told_at_once(tmp_path, model)


def test_a_loader_that_the_cpu_cannot_use_is_refused_before_anything_is_fetched(tmp_path):
    line = told_at_once(tmp_path, "s3://no-such-bucket/llama", "--load-format", "fastsafetensors")
    assert line == "tokenport: load_format=fastsafetensors does not work on the CPU: it copies to a CUDA device; leave it out"


def test_an_archive_without_a_model_is_told(tmp_path):
    (tmp_path / "note").write_text("hello")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "note", "note")
    assert "config.json" in told_at_once(tmp_path, tmp_path / "model.tar.gz")


def test_an_archive_that_brings_code_is_refused_rather_than_served_without_it(tmp_path, model):
    (tmp_path / "inference.py").write_text("def model_fn(folder): ...\n")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "inference.py", "code/inference.py")
        tar.add(model / "config.json", "config.json")
    line = told_at_once(tmp_path, tmp_path / "model.tar.gz")
    assert "model.tar.gz brings code/inference.py, which is run from a folder only" in line


def test_secure_mode_takes_nothing_from_s3(tmp_path):
    secure = {"SAGEMAKER_SECURE_MODE": "true", "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_PICKLE_FILES"}
    line = told_at_once(tmp_path, "s3://bucket/llama", **secure)
    assert "secure mode, DISALLOW_PICKLE_FILES: the model s3://bucket/llama would be downloaded" in line


@pytest.mark.engine
def test_a_model_is_streamed_from_s3_to_the_first_token(tmp_path, cache_dir):
    model = ensure_model(cache_dir, lambda *_: None)
    with s3_server() as s3:
        client = s3.client
        client.create_bucket(Bucket="models")
        for file in model.iterdir():
            client.upload_file(str(file), "models", f"llm/smollm2/{file.name}")
        settings = environment(s3.endpoint) | {"TOKENPORT_LOAD_FORMAT": "runai_streamer", "TOKENPORT_MODEL": "s3://models/llm/smollm2"}
        with start_server(tmp_path, tmp_path / "cache", **settings) as server:
            question = {"prompt": "The capital of France is", "max_tokens": 3, "temperature": 0}
            answer = httpx.post(f"{server.url}/v1/completions", json={"model": "smollm2", **question}, timeout=60)
            assert "Paris" in answer.json()["choices"][0]["text"]
    phases = {body.get("phase") or body.get("status") for _, _, body in server.pings}
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "the weights were to be streamed"
    weights = [body for _, _, body in server.pings if "loading weights" in json.dumps(body)]
    assert weights, f"no progress of the weights among {phases}"
