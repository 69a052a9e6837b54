"""`tokenport bench quality` without the engine: which variants, what is kept of them, what a failure is."""

import json
import subprocess

import pytest

from benchmarks.__main__ import main
from benchmarks.commands import quality

MEASURED = {
    "num_tokens": 100,
    "perplexity_reference": 10.0,
    "perplexity": 11.0,
    "kl_mean": 0.02,
    "kl_p99": 0.1,
    "kl_max": 0.5,
    "top1_agreement": 0.9,
    "runtime": "vllm",
}


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return str(tmp_path / "model")


@pytest.fixture
def asked(monkeypatch):
    """What was measured, in order; the variant `nf4 prepared` fails."""
    found = []

    def prepared(_model, words, _work, environ):
        found.append((words, environ))
        if "nf4" in words:
            raise subprocess.CalledProcessError(1, words)
        return {"quality": dict(MEASURED), "weights_bytes": 50, "quantized_layers": 7}

    def loaded(_model, engine, environ):
        found.append((engine, environ))
        return {"quality": dict(MEASURED), "engine": engine}

    monkeypatch.setattr(quality, "prepared", prepared)
    monkeypatch.setattr(quality, "loaded", loaded)
    return found


def test_by_itself_it_measures_what_the_engine_quantises(model, asked, tmp_path):
    out = tmp_path / "quality.json"
    assert main(["quality", model, "--out", str(out)], {"A": "B"}) == 0
    assert asked == [({"quantization": "int8"}, {"A": "B"})]
    result = json.loads(out.read_text())
    figures = result["metrics"]["by_variant"]["int8 while loading"]
    assert figures["perplexity_ratio"] == pytest.approx(1.1)
    assert figures["kl_mean"] == 0.02
    assert "11.00 instead of 10.00" in result["verdict"]


def test_variants_and_engine_arguments_in_the_order_asked(model, asked):
    words = ["--variants", "int8 prepared+smoothed,float32", "--engine", '{"quantization": "fp8"}']
    assert main(["quality", model, *words], {}) == 0
    assert [how for how, _ in asked] == [["--quantization", "int8", "--smooth"], {"dtype": "float32"}, {"quantization": "fp8"}]


def test_one_that_fails_makes_it_invalid_and_the_others_are_kept(model, asked, tmp_path):
    out = tmp_path / "quality.json"
    assert main(["quality", model, "--variants", "nf4 prepared,int8 prepared", "--out", str(out)], {}) == 3
    result = json.loads(out.read_text())
    assert result["invalid_reasons"] == ["nf4 prepared: could not be measured, exit status 1"]
    assert result["metrics"]["by_variant"]["int8 prepared"]["weights_bytes"] == 50
    assert [run["valid"] for run in result["runs"]] == [False, True]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--variants", "int8 prepare"], "nearest is 'int8 prepared'"),
        (["--engine", "[1]"], "--engine '[1]'"),
        (["--engine", "{"], "--engine '{'"),
    ],
)
def test_what_cannot_be_measured_is_told(model, asked, words, told, capsys):
    assert main(["quality", model, *words], {}) == 2
    assert told in capsys.readouterr().err
    assert asked == []


def test_a_folder_without_a_model_is_told(tmp_path, capsys):
    assert main(["quality", str(tmp_path)], {}) == 2
    assert "16-bit checkpoint" in capsys.readouterr().err
