"""`tokenport bench startup` against a server that only seems to be one: what is started, kept and said."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.commands import served

FAKE = [sys.executable, str(Path(__file__).parent / "fake_tokenport.py"), "serve"]


@pytest.fixture(autouse=True)
def fake_server(monkeypatch):
    monkeypatch.setattr(served, "SERVE", [*FAKE, "{model}", "--port", "{port}"])
    monkeypatch.setattr(served, "VLLM_SERVE", [*FAKE, "{model}", "--port", "{port}"])


def test_every_start_is_kept_and_warm_ups_do_not_count(tmp_path, capsys):
    out = tmp_path / "startup.json"
    assert main(["startup", "--serve", "a-model", "--repeats", "2", "--peer", "vllm", "--out", str(out)], {"PATH": "/usr/bin:/bin"}) == 0
    result = json.loads(out.read_text())
    assert result["kind"] == "startup"
    assert [run["label"] for run in result["runs"]] == [
        "tokenport, warm-up",
        "vllm, warm-up",
        "tokenport, repeat 1",
        "vllm, repeat 1",
        "tokenport, repeat 2",
        "vllm, repeat 2",
    ]
    metrics = result["metrics"]
    assert metrics["first_token_s"]["num_samples"] == metrics["peers"]["vllm"]["first_token_s"]["num_samples"] == 2
    assert metrics["phases_s"]["loading weights"]["mean"] == pytest.approx(0.2)
    counted = [run["metrics"] for run in result["runs"] if run["label"].startswith("tokenport, repeat")]
    assert metrics["first_token_s"]["mean"] == pytest.approx(sum(start["first_token_s"] for start in counted) / 2)
    assert all(start["first_token_s"] > start["ready_s"] > 0 for start in counted)
    pairs = [
        counted[number]["first_token_s"] / peer["metrics"]["first_token_s"]
        for number, peer in enumerate(run for run in result["runs"] if run["label"].startswith("vllm, repeat"))
    ]
    assert metrics["ratios"]["vllm"]["first_token_s"]["mean"] == pytest.approx(sum(pairs) / 2)
    assert result["ledger"]["devices"][0]["weights_bytes"] == 2000
    assert list(tmp_path.iterdir()) == [out], "the server's log goes when all went well"
    assert "loading weights" in capsys.readouterr().out


def test_a_server_that_refuses_is_told_in_its_own_words_and_its_log_kept(tmp_path, capsys):
    out = tmp_path / "startup.json"
    words = ["startup", "--serve", "a-model", "--repeats", "1", "--out", str(out), "--", "--max-model-len", "9999"]
    assert main(words, {"PATH": "/usr/bin:/bin"}) == 2
    told = capsys.readouterr().err
    assert "the model does not fit: a context of 9999 tokens" in told
    assert "startup.server.log" in told
    assert "Goodbye" in (tmp_path / "startup.server.log").read_text()
    assert not out.exists()


@pytest.mark.parametrize("words", [["--repeats", "0"], ["--warm-ups", "-1"]])
def test_numbers_that_make_no_measurement_are_refused(words, capsys):
    assert main(["startup", "--serve", "a-model", *words], {}) == 2
    assert words[0] in capsys.readouterr().err
