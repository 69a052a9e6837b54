"""`tokenport bench memory`: against a server that only seems to be one, whose limits are known, and against the real one."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.commands import memory, served

FAKE = [sys.executable, str(Path(__file__).parent / "fake_tokenport.py")]
ENVIRON = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def fake_server(monkeypatch):
    monkeypatch.setattr(served, "SERVE", [*FAKE, "serve", "{model}", "--port", "{port}"])
    monkeypatch.setattr(memory, "_CHECK", [*FAKE, "check"])


@pytest.mark.usefixtures("fake_server")
def test_a_sweep_finds_what_runs_and_what_does_not_fit(tmp_path, capsys):
    out = tmp_path / "memory.json"
    words = ["memory", "--serve", "a-model", "--sweep", "max_model_len=64,9999", "--sequence-lens", "64", "--out", str(out)]
    assert main([*words, "--", "--max-num-seqs", "12", "--quantization=int8"], ENVIRON) == 0
    result = json.loads(out.read_text())
    assert [run["metrics"]["fits"] for run in result["runs"]] == [True, False]
    assert result["metrics"] == {"num_tried": 2, "num_that_fit": 1}
    found, failed = (run["metrics"] for run in result["runs"])
    assert "a context of 9999 tokens" in failed["reason"]
    assert found["weights_bytes"] == 1000
    assert found["longest_context_tokens"] == 64
    (most,) = found["sequences"]
    assert most["num_running"] == 12, "as many as it has places, of which it was told nothing here"
    assert max(wave["num_at_once"] for wave in most["waves"]) == 16, "it is over when some have waited"
    assert "max_num_seqs" in most["limited_by"]
    assert found["peaks"]["under load"]["pss_bytes"] > 2**20
    assert found["plan"]["kv_cache_bytes"] == {"measured": 8000, "estimate": 8000, "low": 4000, "high": 16000}
    assert set(found["ledgers"]) == {"after_start", "after_warm_up", "under_load"}
    printed = capsys.readouterr().out
    assert "9999" in printed
    assert "planned for a rank" in printed


@pytest.mark.usefixtures("fake_server")
def test_the_largest_setting_is_searched_for(tmp_path):
    out = tmp_path / "memory.json"
    words = ["memory", "--serve", "a-model", "--largest", "max_model_len=64..8000", "--max-starts", "4", "--out", str(out)]
    assert main(words, ENVIRON) == 0
    result = json.loads(out.read_text())
    tried = [int(run["load"]["settings"]["max_model_len"]) for run in result["runs"]]
    assert tried[:2] == [8000, 64]
    fitting = [value for value in tried if value <= 5000]
    assert [run["metrics"]["fits"] for run in result["runs"]] == [value in fitting for value in tried]
    assert result["metrics"]["largest_max_model_len"] == max(fitting)
    assert str(max(fitting)) in result["verdict"]


@pytest.mark.usefixtures("fake_server")
def test_where_nothing_fits_the_run_is_invalid(tmp_path):
    out = tmp_path / "memory.json"
    assert main(["memory", "--serve", "a-model", "--out", str(out), "--", "--max-model-len", "9999"], ENVIRON) == 3
    assert "a context of 9999 tokens" in json.loads(out.read_text())["invalid_reasons"][0]


@pytest.mark.usefixtures("fake_server")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--serve", "a-model", "--sweep", "no_such_setting=1"], "unknown setting no-such-setting"),
        (["--serve", "a-model", "--sweep", "a=1", "--largest", "a=1..2"], "both choose it"),
        (["--serve", "a-model", "--sequence-lens", "1"], "--sequence-lens"),
        (["--serve", "a-model", "--max-starts", "0"], "--max-starts"),
        (["--serve", "a-model", "--url", "http://127.0.0.1:1"], "two targets"),
        (["--url", "http://127.0.0.1:1", "--sweep", "a=1"], "--serve"),
        (["--url", "http://127.0.0.1:1"], "GET /memory"),
        ([], "--serve MODEL"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(words, told, capsys):
    assert main(["memory", *words], ENVIRON) == 2
    assert told in capsys.readouterr().err


@pytest.mark.engine
def test_the_real_server_runs_its_whole_context_and_its_ledger_adds_up(server, tmp_path):
    out = tmp_path / "memory.json"
    assert main(["memory", server.url, "--max-sequences", "8", "--sequence-lens", "32", "--out", str(out)], ENVIRON) == 0
    result = json.loads(out.read_text())
    metrics = result["metrics"]
    assert metrics["longest_context_tokens"] == metrics["max_model_len"] == 2048
    assert metrics["most_sequences"] == {"32": 8}
    (device,) = result["ledger"]["devices"]
    parts = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free")
    assert sum(device[f"{part}_bytes"] for part in parts) == pytest.approx(device["total_bytes"], rel=0.02)
    assert metrics["kv_cache_tokens"] > 8 * 32
    weights = metrics["plan"]["weights_bytes"]
    assert weights["estimate"] == pytest.approx(weights["measured"], rel=0.01)
