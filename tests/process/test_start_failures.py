"""A start that cannot be ends at once with one line a person can act on and exit code 1. The models are made of small files and no weights.

The first half is told before vLLM is imported; the second needs vLLM, and its processes, to find out.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, free_port

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "bfloat16",
}
AT_ONCE_S = 15
"""Generous for a machine that runs other tests beside this; a start that imports vLLM takes longer even on an idle one."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def environment(tmp_path: Path, settings: dict[str, str]) -> dict[str, str]:
    ours = ("TOKENPORT_", "SM_VLLM_", "OPTION_", "HF_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    defaults = {"TOKENPORT_PORT": str(free_port()), "TOKENPORT_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    return inherited | defaults | settings


def failed_start(tmp_path: Path, *words: object, **settings: str) -> list[str]:
    """The lines on standard error of a start that has to fail."""
    command = [sys.executable, "-m", "serving", "serve", *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, env=environment(tmp_path, settings), capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1, ended.stderr
    return ended.stderr.splitlines()


def told_at_once(tmp_path: Path, *words: object, **settings: str) -> str:
    started = time.monotonic()
    lines = failed_start(tmp_path, *words, **settings)
    assert len(lines) == 1, lines
    assert lines[0].startswith("tokenport: ")
    assert time.monotonic() - started < AT_ONCE_S
    return lines[0]


def told_at_last(lines: list[str]) -> str:
    """The last line is the diagnosis, all before it are JSON."""
    *before, last = lines
    assert [line for line in before if not line.startswith('{"time"')] == []
    assert last.startswith("tokenport: ")
    return last


def test_heads_that_cannot_be_divided_are_told_with_the_sizes_that_can(tmp_path, model):
    line = told_at_once(tmp_path, model, TOKENPORT_TENSOR_PARALLEL_SIZE="2", TOKENPORT_ENABLE_LORA="true")
    assert "9 attention heads" in line
    assert "sizes that can: 1, 3;" in line
    assert "unset enable_lora" in line


def test_a_missing_tokenizer_is_told(tmp_path, model):
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer" in told_at_once(tmp_path, model)


def test_a_truncated_file_is_named(tmp_path, model):
    (model / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    assert "model.safetensors" in told_at_once(tmp_path, model)


def test_a_missing_shard_is_named(tmp_path, model):
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    assert "model-00001-of-00001.safetensors" in told_at_once(tmp_path, model)


def test_a_chat_template_that_does_not_parse_is_told_before_the_model_loads(tmp_path, model):
    assert "chat_template does not parse" in told_at_once(tmp_path, model, "--chat-template", "{% for %}")


def test_a_cache_folder_that_cannot_be_written_is_told(tmp_path, model):
    (tmp_path / "file").write_text("not a folder")
    line = told_at_once(tmp_path, model, TOKENPORT_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert "cannot write to the cache folder" in line
    assert "TOKENPORT_CACHE_DIR" in line


def test_offline_with_a_hub_id_is_told_in_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        line = told_at_once(tmp_path, "org/name", HF_ENDPOINT=endpoint)
    assert f"cannot reach {endpoint}" in line
    assert "org/name" in line


def test_a_hub_that_accepts_and_never_answers_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        line = told_at_once(tmp_path, "org/name", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot reach" in line


def test_a_model_that_the_hub_has_not_is_told(tmp_path):
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        line = told_at_once(tmp_path, "org/name", HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
        hub.shutdown()
    assert "the hub has no model org/name" in line


def test_offline_by_wish_with_a_model_that_is_not_in_the_cache_is_told(tmp_path):
    line = told_at_once(tmp_path, "org/name", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in line
    assert "not in the cache" in line


@pytest.mark.engine
def test_an_unknown_architecture_is_named(tmp_path, cache_dir, made_up):
    (made_up / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["FooForCausalLM"]}))
    line = told_at_last(failed_start(tmp_path, made_up, TOKENPORT_LOAD_FORMAT="dummy", TOKENPORT_CACHE_DIR=str(cache_dir)))
    assert "FooForCausalLM" in line
    assert "plugin" in line


@pytest.mark.engine
def test_more_memory_than_there_is_is_told_with_needs_and_has(tmp_path, cache_dir, made_up):
    settings = {"TOKENPORT_LOAD_FORMAT": "dummy", "TOKENPORT_KV_CACHE_MEMORY_BYTES": "9000G", "TOKENPORT_CACHE_DIR": str(cache_dir)}
    line = told_at_last(failed_start(tmp_path, made_up, **settings))
    assert "the model does not fit: on this machine it needs" in line
    assert "9000.0 KV cache" in line, line
    assert f"for kv_cache_memory_bytes={9000 * 2**30}, may take" in line
    assert "what would do: kv_cache_memory_bytes=" in line


@pytest.mark.engine
def test_an_engine_killed_while_it_loads_is_told_with_its_signal(tmp_path, cache_dir, made_up):
    settings = {"TOKENPORT_LOAD_FORMAT": "dummy", "TOKENPORT_CACHE_DIR": str(cache_dir)}
    command = [sys.executable, "-m", "serving", "serve", str(made_up)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path, settings), stderr=subprocess.PIPE, text=True) as server:
        try:
            engine = _engine_core(server.pid)
        except AssertionError as error:
            server.kill()
            raise AssertionError(server.communicate()[1]) from error
        engine.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        lines = server.communicate(timeout=60)[1].splitlines()
        assert time.monotonic() - killed < 10
    assert server.returncode == 1
    assert "the engine core was killed by SIGKILL" in told_at_last(lines)


def _engine_core(pid: int) -> psutil.Process:
    for _ in range(1200):
        for child in psutil.Process(pid).children():
            # The title that it takes when it has its task; before, it only imports.
            if "EngineCore" in " ".join(child.cmdline()):
                return child
        time.sleep(0.1)
    raise AssertionError("no engine core appeared")


@pytest.fixture
def made_up(tmp_path: Path, cache_dir: Path) -> Path:
    """A model of two layers without weights, with the embedded model's tokenizer."""
    from serving.engine.embedded_model import ensure_model

    real = ensure_model(cache_dir, lambda *_: None)
    folder = tmp_path / "made-up"
    folder.mkdir()
    for file in real.glob("tokenizer*"):
        (folder / file.name).symlink_to(file)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
