"""`tokenport plan MODEL`: exit codes, the JSON that others read, the table, hub ids, and one line for what is wrong."""

import json

import pytest

from serving.__main__ import main
from serving.planner.commands import run_plan
from tests.unit.planner.known_models import model

INTERVALS = {
    "weights_bytes",
    "kv_cache_bytes",
    "activation_peak_bytes",
    "cuda_graph_bytes",
    "non_torch_bytes",
    "total_bytes",
    "usable_bytes",
    "budget_bytes",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(model("Llama-3.1-8B").config))
    return str(tmp_path)


def run(capsys, *words):
    code = run_plan(list(words), {})
    return code, capsys.readouterr().out


def test_what_fits_ends_with_0_and_what_does_not_with_1_and_both_are_told(capsys, folder):
    code, text = run(capsys, folder, "--gpu", "L4", "--context", "8k")
    assert code == 0
    assert "fits on 1 x L4 with 1 x 8000 tokens" in text
    code, text = run(capsys, folder, "--gpu", "L4", "--context", "8K", "--concurrency", "32")
    assert code == 1
    assert "does not fit on 1 x L4 with 32 x 8192 tokens" in text
    assert "what would make it fit, cheapest first:" in text


def test_the_table_has_a_bar_for_each_part_and_what_was_assumed(capsys, folder):
    _, text = run(capsys, folder, "--gpu", "L4", "--context", "8k")
    rows = {line[:15].strip(): line for line in text.splitlines() if "█" in line}
    assert rows.keys() >= {"weights", "KV cache", "together", "may take", "has"}
    assert max(rows, key=lambda name: rows[name].count("█")) == "has"
    assert "sizes of the weights: computed from the config" in text


def test_bars_begin_in_one_column_however_large_a_part_is(capsys, folder):
    _, text = run(capsys, folder, "--gpu", "L4", "--context", "128K", "--concurrency", "10k")
    assert len({line.index("█") for line in text.splitlines() if "█" in line and line[:15].strip() in ("KV cache", "together")}) == 1
    heads = next(line for line in text.splitlines() if line.startswith("GiB of each GPU"))
    largest = next(line for line in text.splitlines() if line.startswith("KV cache"))
    assert len(heads) == largest.index("█") - 2


def planned_context(capsys, folder, context):
    return json.loads(run(capsys, folder, "--gpu", "H100", "--context", context, "--json")[1])["request"]["context"]


@pytest.mark.parametrize(("text", "tokens"), [("25.6k", 25_600), ("0.1m", 100_000), ("8K", 8192), ("8k", 8000), ("77", 77)])
def test_numbers_are_written_as_for_vllm(capsys, folder, text, tokens):
    assert planned_context(capsys, folder, text) == tokens


def test_the_json_has_the_names_that_others_rely_on(capsys, folder):
    code, text = run(capsys, folder, "--instance", "ml.g6.12xlarge", "--context", "16384", "--concurrency", "8", "--json")
    told = json.loads(text)
    assert code == 0
    assert told["fits"] is True
    assert told["per_gpu"].keys() == INTERVALS
    assert all(part.keys() == {"estimate", "low", "high"} for part in told["per_gpu"].values())
    assert told["kv_bytes_per_token"] == 131072
    assert told.keys() >= {
        "max_kv_tokens",
        "max_context",
        "max_concurrency",
        "assumed",
        "request",
        "num_gpus",
        "remedies",
        "shortfall_bytes",
    }
    assert told["request"]["context"] == 16384


def test_json_is_printed_where_it_does_not_fit_too(capsys, folder):
    code, text = run(capsys, folder, "--gpu", "T4", "--json")
    assert code == 1
    assert json.loads(text)["shortfall_bytes"] > 0


def test_every_option_has_its_effect(capsys, folder):
    def planned(*words):
        return json.loads(run(capsys, folder, "--gpu", "H100", "--gpus", "8", "--context", "4096", "--json", *words)[1])

    plain = planned()
    assert planned("--quantization", "int8")["per_gpu"]["weights_bytes"]["estimate"] < 0.6 * plain["per_gpu"]["weights_bytes"]["estimate"]
    assert planned("--kv-cache-dtype", "fp8")["kv_bytes_per_token"] == 65536
    assert planned("--dtype", "float32")["kv_bytes_per_token"] == 262144
    assert planned("--tensor-parallel-size", "2")["num_gpus"] == 2
    assert planned("--pipeline-parallel-size", "4")["num_gpus"] == 4
    assert planned("--data-parallel-size", "2")["num_gpus"] == 2
    assert planned("--enforce-eager")["per_gpu"]["cuda_graph_bytes"]["estimate"] == 0
    assert planned("--gpu-memory-utilization", "0.5")["max_kv_tokens"] < plain["max_kv_tokens"]
    assert planned("--max-num-seqs", "8")["max_concurrency"] == 8
    small = planned("--max-num-batched-tokens", "1024", "--max-num-seqs", "8")["per_gpu"]["activation_peak_bytes"]["estimate"]
    assert small < plain["per_gpu"]["activation_peak_bytes"]["estimate"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--context", "-5"], "--context -5: a whole number of 1 or more"),
        (["--context", "8kb"], "--context 8kb: a whole number of 1 or more, such as 8, 8k (8000) or 8K (8192)"),
        (["--context", "1.5"], "--context 1.5: a whole number of 1 or more"),
        (["--gpu", "H100", "--context", "1M"], "context=1048576 is more than the 131072 tokens"),
        (["--gpu", "L5"], "--gpu L5: not known; the nearest is L4"),
        (["--instance", "ml.g6.12xlrge"], "--instance ml.g6.12xlrge: not known; the nearest is ml.g6.12xlarge"),
        (["--instance", "ml.inf2.xlarge"], "--instance ml.inf2.xlarge: Tokenport does not run there"),
        (["--gpus", "2"], "--gpus 2: says how many of --gpu there are"),
        (["--gpu", "L4", "--tensor-parallel-size", "3"], "tensor_parallel_size=3 needs 3 GPUs, there are 1"),
        (["--gpu", "L4", "--quantization", "int88"], "quantization='int88' is not known (nearest: int8)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(capsys, folder, words, told):
    assert main(["plan", folder, *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--contxt", "8k"], ["--gpu"], ["--gpu", "L4", "--instance", "ml.g6.xlarge"]])
def test_a_wrong_command_line_ends_with_2_and_one_line(capsys, folder, words):
    with pytest.raises(SystemExit) as ended:
        run_plan([folder, *words], {})
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    if "--contxt" in words:
        assert "did you mean --context?" in error
