"""`tokenport plan MODEL` on a machine that is named: how fast, with 1, 2, 4, ... requests at once."""

import itertools
import json

import pytest

from serving.__main__ import main
from serving.planner.commands import run_plan
from tests.unit.planner.known_models import model

LOAD = ("--context", "8k", "--input-tokens", "1k", "--output-tokens", "200")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(model("Llama-3.1-8B").config))
    return str(tmp_path)


@pytest.fixture
def plan(capsys, folder):
    """`plan("--gpu", "L4")`: the exit code and the JSON."""

    def run(*words):
        code = run_plan([folder, *words, "--json"], {})
        return code, json.loads(capsys.readouterr().out)

    return run


def test_of_a_gpu_it_has_latency_and_throughput_but_no_cost(plan):
    code, found = plan("--gpu", "H100", *LOAD, "--concurrency", "3")
    row = found["by_concurrency"][0]
    assert code == 0
    assert [one["concurrency"] for one in found["by_concurrency"]] == [1, 2, 3, 4, 8, 16, 32]
    assert row["tpot_s"]["low"] < row["tpot_s"]["estimate"] < row["tpot_s"]["high"]
    assert row["usd_per_million_output_tokens"] is None
    assert found["target"]["input_tokens"] == 1000


def test_one_stream_of_8b_on_an_h100_is_as_fast_as_the_roofline_by_hand(plan):
    _, found = plan("--gpu", "H100", *LOAD)
    read_bytes = 2 * (6_979_321_856 + 128256 * 4096) + 131072 * 1100
    # The median of the published shares of 3350 GB/s, and a millisecond of the engine's.
    assert found["by_concurrency"][0]["tpot_s"]["estimate"] == pytest.approx(read_bytes / (3350e9 * 0.6535) + 0.001, rel=0.005)


def test_of_an_instance_it_has_the_cost_of_all_its_gpus(plan):
    _, found = plan("--instance", "ml.g6.12xlarge", "--context", "8k", "--tensor-parallel-size", "2")
    row = found["by_concurrency"][0]
    assert row["usd_per_million_output_tokens"]["estimate"] == pytest.approx(5.752 / 3600e-6 / row["output_tokens_per_s"]["estimate"])
    assert "USD/M output: of the whole instance, of whose 4 GPUs this takes 2" in found["assumed"]


def test_replicas_work_side_by_side(plan):
    _, found = plan("--gpu", "L4", "--gpus", "8", *LOAD, "--tensor-parallel-size", "2", "--data-parallel-size", "4")
    rows = {one["concurrency"]: one for one in found["by_concurrency"]}
    assert rows[1]["tpot_s"] == rows[4]["tpot_s"]
    assert rows[8]["tpot_s"]["estimate"] > rows[4]["tpot_s"]["estimate"]
    assert max(rows) <= found["max_concurrency"]


def test_what_was_not_told_is_listed(plan):
    _, found = plan("--gpu", "L4", "--gpus", "2", "--tensor-parallel-size", "2", "--context", "8k")
    assert "link between the GPUs: pcie" in found["assumed"]
    assert any(line.startswith("--output-tokens 2000") for line in found["assumed"])
    _, found = plan("--gpu", "H100", "--gpus", "2", "--tensor-parallel-size", "2", *LOAD)
    assert "link between the GPUs: nvlink" in found["assumed"]
    assert not any("tokens" in line and line.startswith("--") for line in found["assumed"])


def test_a_target_that_is_not_kept_ends_with_1(plan):
    code, found = plan("--gpu", "L4", *LOAD, "--tpot", "10ms")
    assert code == 1
    assert found["fits"]
    assert not found["by_concurrency"][0]["keeps_target"]


def test_the_text_has_a_row_for_each(capsys, folder):
    assert run_plan([folder, "--gpu", "H100", *LOAD, "--tpot", "10ms"], {}) == 0
    text = capsys.readouterr().out
    rows = text.partition("at once  TTFT")[2].splitlines()[1:7]
    assert [row.split()[0] for row in rows] == ["1", "2", "4", "8", "16", "32"]
    assert [row.endswith("yes") for row in rows] == [True, True, True, True, False, False]
    assert "estimates from a roofline, not measurements" in text


def test_what_has_no_speed_is_planned_all_the_same_and_says_why(plan):
    code, found = plan("--gpu", "L4", "--gpus", "2", "--pipeline-parallel-size", "2", "--context", "8k")
    assert code == 0
    assert found["by_concurrency"] == []
    assert any("by_concurrency: empty; there is no estimate of the speed of pipeline stages" in line for line in found["assumed"])


def test_of_a_gpu_without_a_rate_the_memory_is_planned(plan, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "gpus: [{name: mine, memory_mib: 90000, usable_mib: 90000, bandwidth_gb_per_s: 9, tflops: {}, source: me, as_of: 2026-11}]"
    )
    code, found = plan("--gpu", "mine", "--context", "8k", "--hardware", str(file))
    assert code == 0
    assert found["by_concurrency"] == []
    assert any("its rate in 16 bits is not known" in line for line in found["assumed"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--budget", "3"), "--budget 3: --gpu L4 has no price"),
        (("--prices", "prices.json"), "--prices prices.json: --gpu L4 has no price"),
        (("--html", "page.html"), "--html page.html: --gpu L4 has no price"),
        (("--input-tokens", "9000"), "do not go into --context 8000 together"),
        (("--calibrate", "absent.json"), "--calibrate absent.json: cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(capsys, folder, words, told):
    assert main(["plan", folder, "--gpu", "L4", "--context", "8k", *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("--gpu", "H100"), "of each request"),
        (("--gpu", "H100", "--tpot", "100ms"), "keeps the target"),
        (("--instance", "ml.g6.12xlarge", "--tensor-parallel-size", "4"), "USD/M output"),
    ],
)
def test_what_nobody_asked_or_knows_has_no_column(folder, capsys, words, last):
    run_plan([folder, *LOAD, *words], {})
    head, row = next(pair for pair in itertools.pairwise(capsys.readouterr().out.splitlines()) if pair[0].startswith("at once"))
    assert head.endswith(last)
    assert row.startswith("1 ")


def test_a_context_without_room_for_an_answer_is_told(folder, capsys):
    assert main(["plan", folder, "--context", "1", "--gpu", "H100"]) == 1
    assert "--context 1: a request has a token of input and one of output; 2 or more" in capsys.readouterr().err
