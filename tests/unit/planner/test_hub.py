"""A hub id is planned from its config.json and the headers of its safetensors files, read by range from a hub on loopback."""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.unit.planner.known_models import model

HEADER = {f"model.layers.{layer}.mlp.up_proj.weight": {"dtype": "BF16", "shape": [64, 64], "data_offsets": [0, 0]} for layer in range(2)}
TEXT = json.dumps(HEADER).encode()
WEIGHTS = struct.pack("<Q", len(TEXT)) + TEXT + bytes(10_000_000)
ODD = json.dumps({"odd": {"dtype": "F3", "shape": [64], "data_offsets": [0, 0]}}).encode()
FILES = {
    "/with/files/resolve/main/config.json": json.dumps(dict(model("Llama-3.1-8B").config)).encode(),
    "/with/files/resolve/main/model.safetensors": WEIGHTS,
    "/odd/config/resolve/main/config.json": b"[1]",
    "/odd/types/resolve/main/config.json": json.dumps(dict(model("Llama-3.1-8B").config)).encode(),
    "/odd/types/resolve/main/model.safetensors": struct.pack("<Q", len(ODD)) + ODD,
    "/without/files/resolve/main/config.json": json.dumps(dict(model("Llama-3.1-8B").config)).encode(),
}


class Hub(BaseHTTPRequestHandler):
    """Serves FILES, and counts what it has sent of them."""

    sent = 0

    def do_HEAD(self) -> None:
        self._answer(b"", 200 if self.path in FILES else 404)

    def do_GET(self) -> None:
        if self.path not in FILES:
            self._answer(b"", 404)
            return
        first, _, last = self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        self._answer(FILES[self.path][int(first) : int(last) + 1 if last else None], 206)

    def _answer(self, content: bytes, status: int) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(content))), ("ETag", '"1"'), ("X-Repo-Commit", "a" * 40)):
            self.send_header(name, value)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if "/files/" in self.path else "RepoNotFound")
        self.end_headers()
        self.wfile.write(content)
        Hub.sent += len(content)

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.sent = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def plan(tmp_path, name: str, endpoint: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)} | variables
    command = [sys.executable, "-m", "serving", "plan", name, "--gpu", "L4", "--context", "4096", "--json"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_headers_are_read_and_not_the_weights(tmp_path, hub):
    told = json.loads(plan(tmp_path, "with/files", hub).stdout)
    rotary = 131072 * 128 * 2
    assert told["per_gpu"]["weights_bytes"]["estimate"] == 2 * 64 * 64 * 2 + rotary
    assert not any("computed from the config" in line for line in told["assumed"])
    assert Hub.sent < 200_000


def test_a_model_without_safetensors_files_is_computed_from_its_config(tmp_path, hub):
    told = json.loads(plan(tmp_path, "without/files", hub).stdout)
    assert told["assumed"][0] == "sizes of the weights: computed from the config, since there are no safetensors files"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("odd/config", "config.json of odd/config on the hub: not the config.json of a model"),
        ("odd/types", "model.safetensors: the header's entry odd has no shape or a type that is not known"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, hub, name, told):
    ended = plan(tmp_path, name, hub)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "variables", "told"),
    [
        ("not/there", {}, "and the hub has no such model, or it is private: check the id, set HF_TOKEN"),
        ("with/files", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "and the hub does not answer"),
        ("with/files", {"HF_HUB_OFFLINE": "1"}, "and as a hub id it is not in the cache; unset HF_HUB_OFFLINE, or give a folder"),
        ("with/too/many", {}, "and no hub id"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path, hub, name, variables, told):
    ended = plan(tmp_path, name, hub, **variables)
    assert ended.returncode == 1
    assert f"MODEL={name}: no such folder or config.json, {told}" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_model_in_the_cache_is_planned_offline(tmp_path, hub):
    snapshot = tmp_path / "hub" / "models--with--files" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(FILES["/with/files/resolve/main/config.json"])
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    references = tmp_path / "hub" / "models--with--files" / "refs"
    references.mkdir()
    (references / "main").write_text("a" * 40)
    told = json.loads(plan(tmp_path, "with/files", hub, HF_HUB_OFFLINE="1").stdout)
    assert not any("computed from the config" in line for line in told["assumed"])
    assert Hub.sent == 0
