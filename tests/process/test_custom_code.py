"""A model folder with code/inference.py before the real engine: its own types in and out, streams, faults, health."""

import contextlib
import os
import subprocess
import sys

import httpx
import pytest

from serving.engine.embedded_model import ensure_model
from tests.conftest import ROOT, start_server

pytestmark = pytest.mark.engine

CODE = """
from sagemaker_inference import content_types, decoder

def input_fn(data, content_type):
    if content_type == content_types.CSV:
        first, second = decoder.decode(data, content_type)
        return {"prompt": f"{first:.0f}, {second:.0f},", "max_tokens": 4, "temperature": 0}
    if content_type == "application/x-stream":
        return {"prompt": data.decode(), "max_tokens": 6, "temperature": 0, "stream": True}
    raise RuntimeError("unreadable: " + str(data))

def output_fn(prediction, accept):
    return prediction["choices"][0]["text"], "text/x-plain-words"
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, cache_dir):
    """The embedded model's files with code beside them."""
    folder = tmp_path_factory.mktemp("custom") / "model"
    folder.mkdir()
    for file in ensure_model(cache_dir, lambda phase, fraction: None).iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(CODE)
    return folder


@pytest.fixture(scope="module")
def custom(tmp_path_factory, cache_dir, model_folder):
    with start_server(tmp_path_factory.mktemp("server"), cache_dir, TOKENPORT_MODEL=str(model_folder)) as server:
        yield server


def post(custom, content, content_type):
    return httpx.post(f"{custom.url}/invocations", content=content, headers={"Content-Type": content_type}, timeout=120)


def test_a_content_type_of_its_own_goes_through_the_engine_and_back(custom):
    answer = post(custom, b"1,2", "text/csv")
    assert answer.status_code == 200, answer.text
    assert "3" in answer.text
    assert answer.headers["content-type"].startswith("text/x-plain-words")


def test_a_stream_passes_chunk_by_chunk(custom):
    whole = post(custom, b"1,2", "text/csv").text
    with httpx.stream(
        "POST", f"{custom.url}/invocations", content=b"1, 2,", headers={"Content-Type": "application/x-stream"}, timeout=120
    ) as answer:
        parts = list(answer.iter_text())
    assert answer.headers["content-type"].startswith("text/x-plain-words")
    assert "".join(parts).startswith(whole)
    assert len(parts) > 1


def test_a_fault_is_a_500_without_traceback_and_in_the_log_without_the_content(custom):
    answer = post(custom, b"zyxwv-secret", "application/x-unknown")
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    failed = [line for line in custom.logged() if line["message"] == "custom code failed"]
    assert "inference.py" in failed[-1]["traceback"]
    assert failed[-1]["request_id"] == answer.headers["x-request-id"]
    assert "zyxwv-secret" not in custom.stderr.read_text() + answer.text


def test_a_client_that_leaves_a_stream_frees_the_engine(custom):
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{custom.url}/invocations", content=b"1, 2,", headers={"Content-Type": "application/x-stream"}, timeout=60
        ) as answer,
    ):
        next(answer.iter_bytes())
    assert post(custom, b"1,2", "text/csv").status_code == 200
    assert custom.running() == 0


def test_the_server_is_healthy_after_all_of_it_and_the_openai_routes_are_untouched(custom):
    assert httpx.get(f"{custom.url}/ping").status_code == 200
    answer = httpx.post(f"{custom.url}/v1/completions", json={"prompt": "1, 2,", "max_tokens": 2}, timeout=120)
    assert answer.json()["choices"][0]["text"]


def test_the_log_says_once_whose_code_runs_and_the_folder_stays_as_it_was(custom, model_folder):
    said = [line for line in custom.logged() if line["message"] == "custom code"]
    assert [line["functions"] for line in said] == [["input_fn", "output_fn"]]
    assert os.listdir(model_folder / "code") == ["inference.py"]


def test_secure_mode_ends_the_process_before_anything_is_loaded(model_folder):
    secure = {"SAGEMAKER_SECURE_MODE": "true", "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_CUSTOM_INFERENCE_SCRIPTS"}
    for command in ("serve", "check"):
        ended = subprocess.run(
            [sys.executable, "-m", "serving", command, str(model_folder)],
            cwd=ROOT,
            env=os.environ | secure,
            capture_output=True,
            timeout=20,
        )
        assert ended.returncode != 0
        [line] = ended.stderr.decode().splitlines()
        assert "DISALLOW_CUSTOM_INFERENCE_SCRIPTS" in line
        assert str(model_folder / "code" / "inference.py") in line


@pytest.mark.parametrize("field", [{"chat_template": "{{ messages }}"}, {"chat_template_kwargs": {"chat_template": "{{ messages }}"}}])
def test_a_request_cannot_bring_its_chat_template(custom, field):
    """Secure mode relies on it: it only forbids the option that would allow them."""
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2} | field
    answer = httpx.post(f"{custom.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]["message"].lower()
