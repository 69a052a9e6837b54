"""The ranking of instances for an 8B model in 16 bits, and why the others lose."""

import argparse
import json
import shlex
from dataclasses import replace

import pytest

from serving.errors import PlanError
from serving.planner.commands.ranking import run_ranking
from serving.planner.commands.target import add_options, has_target
from serving.planner.instances import load_hardware
from serving.planner.model import model_of
from serving.planner.plan import PlanRequest
from tests.unit.planner.known_models import CONFIGS

CONFIG = CONFIGS["Llama-3.1-8B"] | {"torch_dtype": "bfloat16"}
REQUEST = PlanRequest(context=8192, concurrency=8)


def parse(*words):
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--instance")
    return parser.parse_args(words)


@pytest.fixture
def rank(capsys):
    """`rank("--budget", "5", request=..., config=...)`: the exit code and the JSON."""

    def run(*words, request=REQUEST, config=CONFIG):
        code = run_ranking(parse(*words, "--json"), model_of("a-model", config), request)
        return code, json.loads(capsys.readouterr().out)

    return run


def loser(found, name):
    return next(one for one in found["losers"] if one["instance"] == name)


def test_the_cheapest_a_token_is_first(rank):
    code, found = rank("--ttft", "2s", "--tpot", "100ms", "--budget", "5")
    costs = [one["usd_per_million_output_tokens"]["estimate"] for one in found["winners"]]
    assert code == 0
    assert costs == sorted(costs)
    assert all(one["price_per_hour"] <= 5 for one in found["winners"])


def test_what_wins_keeps_the_target_and_carries_all_that_is_needed_to_run_it(rank):
    _, found = rank("--ttft", "2s", "--tpot", "100ms")
    first = found["winners"][0]
    assert first["fits"]
    assert first["ttft_s"]["estimate"] <= 2
    assert first["tpot_s"]["estimate"] <= 0.1
    assert first["settings"]["TOKENPORT_MAX_MODEL_LEN"] == "8192"
    assert first["sagemaker"]["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert set(first["per_gpu"]) >= {"weights_bytes", "kv_cache_bytes", "total_bytes", "usable_bytes"}
    words = shlex.split(first["deploy_command"])
    assert words[:3] == ["tokenport", "deploy", "endpoint"]
    assert f"TOKENPORT_TENSOR_PARALLEL_SIZE={first['tensor_parallel_size']}" in words


def test_every_instance_of_the_table_wins_or_says_why_not(rank):
    _, found = rank("--budget", "5")
    names = {one["instance"] for one in found["winners"]} | {one["instance"] for one in found["losers"]}
    assert names == load_hardware().instances.keys()
    assert all(one["reasons"] for one in found["losers"])


def test_each_kind_of_reason_is_told(rank):
    _, found = rank("--tpot", "10ms", "--budget", "12")
    assert "over the budget of 12" in loser(found, "ml.g5.48xlarge")["reasons"][-1]
    assert loser(found, "ml.p5.48xlarge")["reasons"] == ["price unknown: give a table that has it with --prices"]
    assert "GiB short on each GPU" in loser(found, "ml.g4dn.xlarge")["reasons"][0]
    assert "unsupported: " in loser(found, "ml.inf2.xlarge")["reasons"][0]
    assert "TPOT" in loser(found, "ml.g6.12xlarge")["reasons"][0]
    assert "over 10 ms" in loser(found, "ml.g6.12xlarge")["reasons"][0]


def test_a_slow_first_token_is_a_reason(rank):
    code, found = rank("--ttft", "1ms", "--instance", "ml.g6e.12xlarge")
    assert code == 1
    assert found["winners"] == []
    assert "TTFT" in found["losers"][0]["reasons"][0]


def test_gpus_that_one_copy_does_not_need_carry_more_copies(rank):
    _, found = rank("--instance", "ml.g6e.12xlarge")
    sizes = {(one["tensor_parallel_size"], one["data_parallel_size"]) for one in found["winners"]}
    assert sizes == {(1, 4), (2, 2), (4, 1)}
    copies = next(one for one in found["winners"] if one["data_parallel_size"] == 4)
    assert copies["settings"]["TOKENPORT_DATA_PARALLEL_SIZE"] == "4"


def test_8_bits_are_proposed_where_the_gpu_computes_in_them(rank):
    _, on_ada = rank("--instance", "ml.g6e.12xlarge")
    _, on_ampere = rank("--instance", "ml.g5.12xlarge")
    assert {one["quantization"] for one in on_ada["winners"]} == {None, "int8", "fp8"}
    assert {one["quantization"] for one in on_ampere["winners"]} == {None, "int8"}


def test_what_is_asked_for_is_not_varied(rank):
    request = PlanRequest(context=8192, concurrency=8, quantization="int8", tensor_parallel_size=2)
    _, found = rank("--instance", "ml.g6e.12xlarge", request=request)
    assert {(one["quantization"], one["tensor_parallel_size"]) for one in found["winners"]} == {("int8", 2)}


def test_so_many_at_once_as_asked_for_is_a_setting(rank):
    _, found = rank("--instance", "ml.p5en.48xlarge", request=PlanRequest(context=1024, concurrency=3000, tensor_parallel_size=8))
    assert {one["settings"]["TOKENPORT_MAX_NUM_SEQS"] for one in found["winners"]} == {"3000"}


def test_none_holds_the_ranking_to_the_checkpoint_as_it_is(rank):
    _, found = rank("--instance", "ml.p5en.48xlarge", request=PlanRequest(context=1024, quantization="none"))
    assert {one["quantization"] for one in found["winners"]} == {None}
    assert not any("TOKENPORT_QUANTIZATION" in one["settings"] for one in found["winners"])


def test_without_a_context_it_is_the_models_own(rank):
    _, found = rank("--instance", "ml.p5en.48xlarge", request=PlanRequest())
    assert found["context"] == 131072
    assert "--context 131072: the model's own" in found["assumed"]
    assert found["fits"]
    assert found["per_gpu"]["weights_bytes"].keys() == {"estimate", "low", "high"}
    assert found["num_gpus"] == found["winners"][0]["tensor_parallel_size"], "the plan is that of the first winner"


def test_more_copies_than_gpus_is_a_reason(rank):
    _, found = rank("--instance", "ml.g6.xlarge", request=PlanRequest(context=8192, tensor_parallel_size=2))
    assert found["losers"][0]["reasons"] == ["has 1 of the 2 GPUs asked for"]


def test_machines_of_ones_own_take_part_with_their_price(rank, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("instances: [{name: my box, gpu: L40S, num_gpus: 1, price_per_hour: 0.01, host_memory_gib: 64, note: in the cellar}]")
    _, found = rank("--hardware", str(mine))
    assert found["winners"][0]["instance"] == "my box"
    assert found["winners"][0]["note"] == "in the cellar"
    assert found["winners"][0]["host_memory_bytes"] == 64 * 2**30
    assert found["winners"][0]["sagemaker"] is None
    assert found["winners"][0]["deploy_command"] is None


def test_prices_of_ones_own_replace_the_table(rank, tmp_path):
    prices = tmp_path / "prices.json"
    entry = {"instance": "ml.p5.48xlarge", "usd_per_hour": 1.0, "region": "us-east-1", "as_of": "2026-11-25", "source": "a contract"}
    prices.write_text(json.dumps({"entries": [entry]}))
    _, found = rank("--prices", str(prices))
    assert {one["instance"] for one in found["winners"]} == {"ml.p5.48xlarge"}
    assert found["winners"][0]["price_source"] == "a contract"


def test_a_value_that_nobody_told_is_listed(rank):
    _, found = rank()
    assert any(line.startswith("--output-tokens 2048") for line in found["assumed"])
    assert any(line.startswith("--input-tokens 6144") for line in found["assumed"])
    _, told = rank("--input-tokens", "1000", "--output-tokens", "100")
    assert not any(line.startswith("--") for line in told["assumed"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--ttft", "2"), "--ttft 2: write a length of time with its unit"),
        (("--budget", "-1"), "--budget -1: write a number above 0"),
        (("--input-tokens", "many"), "--input-tokens many"),
        (("--input-tokens", "8000", "--output-tokens", "1000"), "do not go into --context 8192 together"),
        (("--instance", "ml.g6.3xlarge"), "the nearest is ml.g6."),
        (("--ttft", "0s"), "--ttft 0s: nothing takes no time"),
        (("--tpot", ""), "--tpot : write a length of time with its unit"),
        (("--budget", "0"), "--budget 0: write a number above 0"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(words, told):
    with pytest.raises(PlanError) as caught:
        run_ranking(parse(*words), model_of("a-model", CONFIG), REQUEST)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["pipeline_parallel_size", "data_parallel_size"])
def test_a_split_that_the_ranking_does_not_know_is_refused(field):
    request = PlanRequest(context=8192, **{field: 2})
    with pytest.raises(PlanError, match=f"--{field.replace('_', '-')} 2: .*leave it out"):
        run_ranking(parse(), model_of("a-model", CONFIG), request)


def test_the_text_has_the_table_the_reasons_and_the_command(capsys):
    assert run_ranking(parse("--budget", "5"), model_of("a-model", CONFIG), REQUEST) == 0
    text = capsys.readouterr().out
    for words in ("USD/M output", "why not", "unsupported", "TOKENPORT_MAX_MODEL_LEN=8192", "tokenport deploy endpoint", "assumed:"):
        assert words in text
    assert "estimates from a roofline, not measurements" in text
    assert "published measurements of other machines" in text


def test_a_target_is_anything_that_only_the_ranking_answers():
    assert not has_target(parse())
    assert has_target(parse("--ttft", "2s"))
    assert has_target(parse("--html", "page.html"))


def test_the_first_is_told_with_other_numbers_of_requests_at_once(rank):
    _, found = rank("--ttft", "2s", "--tpot", "100ms")
    rows = {row["concurrency"]: row for row in found["by_concurrency"]}
    first, names = found["winners"][0], ("ttft_s", "tpot_s", "output_tokens_per_s", "usd_per_million_output_tokens")
    assert {1, 2, 4, 8} <= rows.keys()
    assert max(rows) <= first["max_concurrency"]
    assert {name: rows[8][name] for name in names} == {name: first[name] for name in names}
    assert rows[8]["keeps_target"]
    assert rows[8]["output_tokens_per_s_per_request"]["estimate"] == pytest.approx(rows[8]["output_tokens_per_s"]["estimate"] / 8)


def test_where_nothing_keeps_the_target_the_nearest_tells_with_how_many_it_would(rank):
    request = PlanRequest(context=8192, concurrency=16, quantization="none")
    words = ("--instance", "ml.g6e.xlarge", "--input-tokens", "1000", "--output-tokens", "200", "--tpot", "35ms")
    code, found = rank(*words, request=request)
    kept = {row["concurrency"]: row["keeps_target"] for row in found["by_concurrency"]}
    assert code == 1
    assert kept[1]
    assert not kept[16]


def test_what_does_not_hold_as_many_as_asked_for_tells_what_it_does_with_those_it_holds(rank):
    request = PlanRequest(context=8192, concurrency=64, quantization="none")
    _, found = rank("--instance", "ml.g6e.xlarge", request=request)
    assert found["losers"][0]["ttft_s"] is None
    assert [row["concurrency"] for row in found["by_concurrency"]] == [1, 2, 4, 8, 16]


def test_of_an_instance_that_loses_the_split_nearest_to_the_target_is_told(rank):
    request = PlanRequest(context=8192, concurrency=32, quantization="none")
    _, split = rank("--tpot", "1ms", "--instance", "ml.g6e.12xlarge", request=request)
    tpot_s = split["losers"][0]["tpot_s"]["estimate"]
    for size in (1, 2, 4):
        _, other = rank("--tpot", "1ms", "--instance", "ml.g6e.12xlarge", request=replace(request, tensor_parallel_size=size))
        assert tpot_s <= other["losers"][0]["tpot_s"]["estimate"]


def test_a_machine_whose_speed_is_not_known_loses_and_the_others_are_ranked(rank, tmp_path):
    narrow = CONFIG | {"model_type": "glm4", "architectures": ["Glm4ForCausalLM"]}
    page = tmp_path / "page.html"
    code, found = rank("--tpot", "100ms", "--html", str(page), config=narrow)
    assert code == 0
    assert found["winners"]
    # Without bfloat16, and too wide for float16.
    assert loser(found, "ml.g4dn.12xlarge")["reasons"] == ["there is no estimate of the speed in 32 bits"]
    assert "no estimate of the speed in 32 bits" in page.read_text()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (replace(REQUEST, quantization="fp9"), "quantization='fp9' is not known (nearest: fp8)"),
        (replace(REQUEST, context=500_000), "context=500000 is more than the 131072 tokens that the model was made for"),
        (replace(REQUEST, kv_cache_dtype="fp7"), "kv_cache_dtype='fp7' is not planned"),
    ],
)
def test_what_no_machine_can_do_is_told_once_and_not_of_each(rank, request_, told):
    with pytest.raises(PlanError) as caught:
        rank("--ttft", "2s", request=request_)
    assert told in str(caught.value)


def test_what_the_plan_of_the_first_assumes_is_listed_too(rank):
    _, found = rank("--instance", "ml.g6e.xlarge")
    assert any(line.startswith("max_num_batched_tokens: ") for line in found["assumed"])
    assert len(set(found["assumed"])) == len(found["assumed"])


def test_results_can_be_given_one_by_one():
    assert [str(path) for path in parse("--calibrate", "a", "b", "--calibrate", "c").calibrate] == ["a", "b", "c"]


def test_a_first_that_may_not_fit_says_so(capsys):
    request = PlanRequest(context=8192, concurrency=16, quantization="none")
    assert run_ranking(parse("--instance", "ml.g6e.xlarge"), model_of("a-model", CONFIG), request) == 0
    assert "by their ends it may not" not in capsys.readouterr().out
    most = replace(request, concurrency=24)
    run_ranking(parse("--instance", "ml.g6e.xlarge"), model_of("a-model", CONFIG), most)
    assert "The first, ml.g6e.xlarge, fits by the estimates of its memory: by their ends it may not" in capsys.readouterr().out


def test_replicas_of_a_mixture_of_experts_are_told_to_be_timed_alone(rank):
    request = PlanRequest(context=4096, concurrency=8, tensor_parallel_size=4)
    of_experts = rank("--instance", "ml.p5en.48xlarge", request=request, config=CONFIGS["Qwen3-30B-A3B"])[1]["assumed"]
    dense = rank("--instance", "ml.p5en.48xlarge", request=request)[1]["assumed"]
    assert any("timed without what they exchange" in line for line in of_experts)
    assert not any("timed without what they exchange" in line for line in dense)
