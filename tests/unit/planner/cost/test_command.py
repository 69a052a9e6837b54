"""`tokenport plan cost` as a command: what it prints, and what it refuses."""

import json
import sys

import pytest

from serving.errors import PlanError
from serving.planner.commands.cost import run

PROFILE = "--profile flat --requests-per-day 500 --input-tokens 500 --output-tokens 100"
API = "--api-model meta.llama3-1-8b-instruct-v1:0"
BENCH = {
    "schema_version": 1,
    "created": "2026-11-20T10:00:00+00:00",
    "valid": True,
    "invalid_reasons": [],
    "machine": {"cpu": "a processor", "gpus": [{"name": "NVIDIA L4"}]},
}
INSTANCE = "--instance ml.g6.2xlarge --capacity concurrency=4,ttft=500ms,tpot=20ms"


def test_every_option_is_told_with_cost_latency_shares_and_use(report):
    found = report(f"{PROFILE} {API} --api-speed ttft=1s,tpot=10ms {INSTANCE} --cold-start 5m --lambda-cold-start 1s --slo e2e=1m")
    assert [option["name"] for option in found["options"]] == [
        "on-demand",
        "lambda + on-demand",
        "endpoint, 1 x",
        "endpoint, 1 x + on-demand",
        "endpoint, 1 to 16 x",
        "endpoint, 1 to 16 x + on-demand",
        "endpoint, 0 to 16 x",
        "endpoint, 0 to 16 x + on-demand",
    ]
    for option in found["options"]:
        assert option["share_in_time"] + option["share_late"] + option["share_refused"] == pytest.approx(1)
        assert option["wait_s"]["p50"] <= option["wait_s"]["p99"]
        assert option["usd_per_month"] == pytest.approx(sum(charge["usd"] for charge in option["charges"]))
    assert found["cheapest"] == "on-demand"
    assert [option["name"] for option in found["options"] if option["is_cheapest"]] == ["on-demand"]
    # 500 requests a day of 600 tokens at $0.22 a million, over 730 hours.
    assert found["options"][0]["usd_per_month"] == pytest.approx(500 * 600 * 0.22 / 1e6 * 730 / 24)
    assert found["options"][2]["usd_per_month"] == pytest.approx(1.222 * 730)


def test_every_price_is_told_with_its_source_and_date(report):
    sources = report(f"{PROFILE} {API} --api-speed ttft=1s,tpot=10ms {INSTANCE} --cold-start 5m")["sources"]
    assert "speed of the API: TTFT 1000 ms, TPOT 10.0 ms: --api-speed" in sources
    assert "time to a new instance: 300.0 s: --cold-start" in sources
    assert any("$0.22/million" in line and "pricing.yml" in line and "2025-01-26" in line for line in sources)
    assert any("ml.g6.2xlarge: $1.222/hour" in line and "2025-01-26" in line for line in sources)
    assert any("speed of an instance: 4 at once, TTFT 500 ms, TPOT 20.0 ms: --capacity" in line for line in sources)


def test_what_nobody_told_is_listed_as_assumed_and_what_was_told_is_not(report):
    def assumed(words):
        return "\n".join(report(words)["assumed"])

    silent = assumed(f"{PROFILE} {API}")
    for told in ("--slo wait=1s", "--length-variation 1", "the API throttles nobody", "nothing of the API's own latency", "--seed 0"):
        assert told in silent
    scaling = assumed(f"{PROFILE} {API} --tokens-per-minute 1e6 {INSTANCE} --cold-start 5m")
    for told in (
        "3 times in all: --attempts",
        "no more than 16 instances or model units: --max-units",
        "--min-instances 1",
        "--wake-after 1 min",
    ):
        assert told in scaling
    words = "--slo e2e=1m --slo-share 0.99 --length-variation 0 --seed 0 --tokens-per-minute 1e6 --attempts 3 --api-speed ttft=1s,tpot=1ms"
    assert assumed(f"{PROFILE} {API} {words}").count("\n") == 0


def test_what_is_not_compared_is_listed_with_what_is_missing(report):
    missing = report(f"{PROFILE} --api-model anthropic.claude-3-sonnet-20240229-v1:0")["not_compared"]
    assert "provisioned, no commitment: what a unit carries is not published: give --mu-input-tpm" in missing
    assert "provisioned, 1 month: no price: give --mu-price-per-hour" in missing
    assert "endpoint: no --instance" in missing


def test_an_unknown_latency_is_not_said_to_hold(report):
    found = report(f"{PROFILE} {API} --slo ttft=1s")
    assert found["cheapest"] is None
    assert found["options"][0]["holds_slo"] is None


def test_an_unknown_latency_takes_no_more_units_than_are_needed_and_does_not_hide_what_is_refused(report):
    units = "--mu-price-per-hour 2 --mu-input-tpm 60000 --mu-output-tpm 12000"
    found = report(f"{PROFILE} {API} {units} --slo ttft=1s --tokens-per-minute 150")["options"]
    assert [(option["name"], option["holds_slo"]) for option in found] == [("on-demand", False), ("provisioned, 1 x, no commitment", None)]


def test_a_unit_of_ones_own_contract_is_compared_by_its_commitment(report):
    words = "--mu-price-per-hour 2 --mu-commitment 6-months --mu-input-tpm 60000 --mu-output-tpm 12000 --max-units 1"
    found = report(f"{PROFILE} {API} {words}")
    option = found["options"][1]
    # A load of a week does not end what is owed.
    assert option["usd_committed"] == pytest.approx(6 * 2 * 730)
    assert any("provisioned, 1 x, 6 months: the load lasts as long as the commitment; $8,760.00" in line for line in found["assumed"])
    assert found["options"][0]["usd_committed"] == 0
    assert option["name"] == "provisioned, 1 x, 6 months"
    assert option["commitment_months"] == 6
    assert option["usd_per_month"] == pytest.approx(2 * 730)


def test_own_prices_and_an_own_load_are_what_is_counted(tmp_path, report):
    prices, load = tmp_path / "prices.json", tmp_path / "load.csv"
    entry = {"model": "ours", "input_usd_per_million": 10, "output_usd_per_million": 20, "region": None, "as_of": "2026-11", "source": "us"}
    prices.write_text(json.dumps({"on_demand": [entry]}))
    load.write_text("hour,requests,input_tokens,output_tokens\n0,10,100000,10000\n1,0,0,0\n")
    option = report(f"--load {load} --api-model ours --prices {prices}")["options"][0]
    assert option["usd_per_month"] == pytest.approx((0.1 * 10 + 0.01 * 20) * 730 / 2)


def test_units_that_a_price_file_tells_all_of_need_no_further_option(tmp_path, report):
    rates = {"usd_per_hour": 20, "input_tokens_per_minute": 60000, "output_tokens_per_minute": 12000}
    entry = {"model": API.split()[1], "commitment": "1-month", **rates, "region": None, "as_of": "2026-11", "source": "us"}
    (tmp_path / "prices.json").write_text(json.dumps({"provisioned": [entry]}))
    words = f"{PROFILE} {API} --prices {tmp_path}/prices.json"
    assert report(f"{words} --max-units 1")["options"][1]["name"] == "provisioned, 1 x, 1 month"
    assumed = "\n".join(report(words)["assumed"])
    assert "--max-units" in assumed
    assert "--attempts" in assumed


def test_a_model_without_a_price_by_the_token_is_not_called_unknown(tmp_path):
    rates = {"usd_per_hour": 20, "input_tokens_per_minute": 60000, "output_tokens_per_minute": 12000}
    entry = {"model": "ours", "commitment": "none", **rates, "region": None, "as_of": "2026-11", "source": "us"}
    (tmp_path / "prices.json").write_text(json.dumps({"provisioned": [entry]}))
    with pytest.raises(PlanError, match="--api-model ours: has a price for model units and none by the token"):
        run(f"{PROFILE} --api-model ours --prices {tmp_path}/prices.json".split(), {})


def test_equal_words_give_equal_figures_and_another_seed_others(report):
    words = f"{PROFILE} {INSTANCE} --slo e2e=1m"
    assert report(words) == report(words)
    assert (report(words)["load"]["seed"], report(f"{words} --seed 1")["load"]["seed"]) == (0, 1)
    assert report(words)["options"][0]["e2e_s"] != report(f"{words} --seed 1")["options"][0]["e2e_s"]


def test_price_and_load_are_varied_by_what_was_asked(report):
    found = report(f"{PROFILE} {API} --instance ml.g6.2xlarge --capacity concurrency=64,ttft=500ms,tpot=20ms --vary 50")
    assert [one["load_factor"] for one in found["at_other_loads"]] == [0.5, 1.5]
    point = found["break_even"][0]
    assert [one["price_factor"] for one in point["at_other_prices"]] == [0.5, 1.5]
    assert point["at_other_prices"][0]["requests_per_day"] == pytest.approx(point["requests_per_day"] / 2)


@pytest.mark.parametrize(
    ("requests_per_day", "vary", "told"),
    [(0.1, 60, "has no whole request to simulate"), (250_000, 20, "2100000 requests are more than the 2000000 simulated")],
)
def test_another_load_that_cannot_be_simulated_leaves_the_comparison_as_it_is(report, requests_per_day, vary, told):
    words = f"--profile flat --requests-per-day {requests_per_day} --input-tokens 500 --output-tokens 100 {API} --vary {vary}"
    fewer, more = report(words)["at_other_loads"]
    wrong, right = (fewer, more) if requests_per_day < 1 else (more, fewer)
    assert wrong["cheapest"] is None
    assert told in wrong["why_not"]
    assert right["cheapest"] == "on-demand"
    assert right["why_not"] is None


def test_an_endpoint_that_scales_keeps_the_instances_it_is_told_to_keep(report):
    options = report(f"{PROFILE} {INSTANCE} --cold-start 5m --min-instances 2 --max-units 3")["options"]
    assert [(option["name"], option["num_instances"]) for option in options[:2]] == [("endpoint, 1 x", 1), ("endpoint, 2 to 3 x", 2)]
    options = report(f"{PROFILE} {INSTANCE} --cold-start 5m --min-instances 3 --max-units 3")["options"]
    assert [option["name"] for option in options] == ["endpoint, 1 x", "endpoint, 0 to 3 x"]


def test_a_speed_may_be_the_planners_estimate(tmp_path, report):
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 8192, **shape}
    (tmp_path / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16", "tie_word_embeddings": True}))
    found = report(f"{PROFILE} --instance ml.g6.2xlarge --model {tmp_path}")
    assert found["options"][0]["ttft_s"]["p50"] > 0
    assert any("the speed is an estimate, not a measurement" in line for line in found["assumed"])
    assert "an instance works on 16 requests at once: --concurrency" in found["assumed"]
    with pytest.raises(
        PlanError, match=r"on ml\.g6\.2xlarge as asked: does not fit: .* GiB short on each GPU; \d+ at once fit: --concurrency"
    ):
        report(f"{PROFILE} --instance ml.g6.2xlarge --model {tmp_path} --concurrency 2000")
    # It computes in 16 bits, and what was measured in 8 says nothing of that.
    measured = {
        **BENCH,
        "kind": "throughput",
        "machine": {"gpus": [{"name": "NVIDIA L4"}]},
        "metrics": {"requests_per_s": 1},
        "efficiency": {"precision": "int8", "bytes_per_s": 2e11},
    }
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    with pytest.raises(PlanError, match=r"--calibrate measured\.json: without effect"):
        report(f"{PROFILE} --instance ml.g6.2xlarge --model {tmp_path} --calibrate {tmp_path}/measured.json")


def test_the_table_marks_the_cheapest_and_says_what_it_stands_on(capsys):
    assert run(f"{PROFILE} {API} {INSTANCE}".split(), {}) == 0
    told = capsys.readouterr().out
    for part in ("* on-demand", "endpoint, 1 x", "The cheapest that holds the SLO: on-demand.", "Break-even", "Sources:", "Assumed:"):
        assert part in told


def test_no_figure_is_cut_short_by_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run(f"{PROFILE} {API} {INSTANCE} --cold-start 5m".split(), {})
    told = capsys.readouterr().out
    assert "endpoint, 1 to 16 x + on-demand" in told
    assert "…" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "no load: give --load FILE.csv, or --profile"),
        ("--profile flat", "--profile flat: needs --requests-per-day and --input-tokens and --output-tokens; its name says only how"),
        ("--profile flat --input-tokens 5 --output-tokens 5", "--profile flat: needs --requests-per-day; "),
        (f"--load x.csv {PROFILE} {API}", "--load and --profile say the same thing twice"),
        ("--load x.csv --requests-per-day 5", "--requests-per-day 5: needs --profile"),
        (PROFILE, "nothing to compare: give --api-model NAME, or --instance NAME"),
        (
            f"{PROFILE} --api-model meta.llama3-1-8b",
            "--api-model 'meta.llama3-1-8b' is unknown; the nearest is 'meta.llama3-1-8b-instruct-v1:0'",
        ),
        (f"{PROFILE} --instance ml.g6.2xlarge", "--instance ml.g6.2xlarge: needs --capacity or --bench or --model"),
        (
            f"{PROFILE} --instance ml.g6.3xlarge --capacity concurrency=1,ttft=1s,tpot=1s",
            "--instance ml.g6.3xlarge: not known; the nearest is",
        ),
        (f"{PROFILE} --instance ml.p5.48xlarge --capacity concurrency=1,ttft=1s,tpot=1s", "no price of it is known; give --price-per-hour"),
        (f"{PROFILE} {INSTANCE} --bench x.json", "--capacity and --bench say the same thing twice"),
        (f"{PROFILE} {INSTANCE} --target-concurrency 3", "--target-concurrency 3: needs --cold-start or --startup"),
        (f"{PROFILE} {API} --mu-price-per-hour 20", "--mu-price-per-hour 20: needs --mu-input-tpm"),
        (f"{PROFILE} {API} --mu-input-tpm 5 --mu-output-tpm 5", "the prices have no model unit of meta.llama3-1-8b-instruct-v1:0"),
        (
            f"{PROFILE} {API} --mu-price-per-hour 20 --mu-input-tpm 5 --mu-output-tpm 5 --mu-commitment 1month",
            "--mu-commitment '1month' is unknown; the nearest is '1-month'",
        ),
        (
            f"{PROFILE} {API} --api-speed ttft=1s,tpot=1ms --lambda-cold-start 1s --lambda-memory-mb 10241",
            "--lambda-memory-mb 10241: write a whole number from 128 to 10240",
        ),
        (f"{PROFILE} {API} --lambda-cold-start 1s", "--lambda-cold-start 1s: needs --api-speed"),
        (f"{PROFILE} {API} --tokens-per-minute 0", "--tokens-per-minute 0: write a number above 0"),
        (f"{PROFILE} {INSTANCE} --min-instances 2", "--min-instances 2: needs --cold-start or --startup"),
        (
            f"{PROFILE} {INSTANCE} --cold-start 5m --max-units 3 --min-instances 4",
            "--min-instances 4: write a whole number from 1 to 3",
        ),
        (f"{PROFILE} {API} --length-variation 6", "--length-variation 6: write 0, or from 0.001 to 5"),
        (f"{PROFILE} {API} --length-variation 1e-200", "--length-variation 1e-200: write 0, or from 0.001 to 5"),
        (f"{PROFILE} {API} --requests-per-day 1e20", "more than the 2000000 simulated"),
        (f"{PROFILE} {API} --requests-per-day 0.05", "has no whole request to simulate"),
        (f"{PROFILE} {API} --tokens-per-minute 5 --attempts 2000", "--attempts 2000: write a whole number from 1 to 100"),
        (f"{PROFILE} {API} --seed {'9' * 5000}", "write a whole number of at least 0"),
        (f"{PROFILE} {API} --seed -1", "--seed -1: write a whole number of at least 0"),
        (f"{PROFILE} {API} --slo e2e=fast", "--slo e2e fast: write a length of time with its unit"),
        (f"{PROFILE} {API} --slo e2e=1s --slo-share 2", "--slo-share 2: write a share above 0 and up to 1"),
        (f"{PROFILE} {API} --vary 100", "--vary 100: write a number of percent between 0 and 100"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(words, told):
    with pytest.raises(PlanError) as caught:
        run(words.split(), {})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_ends_with_2_and_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["--proflie", "flat"], {})
    assert caught.value.code == 2
    assert capsys.readouterr().err == "tokenport plan cost: unknown '--proflie'; did you mean --profile?\n"


def test_prices_of_instances_may_be_ones_own(tmp_path, report):
    table = tmp_path / "prices.json"
    entry = {"instance": "ml.g6.2xlarge", "usd_per_hour": 1.0, "region": "eu-west-1", "as_of": "2026-11-25", "source": "AWS Price List"}
    table.write_text(json.dumps({"entries": [entry]}))
    found = report(f"{PROFILE} {INSTANCE} --instance-prices {table}")
    assert found["options"][0]["usd_per_month"] == pytest.approx(730)
    assert "ml.g6.2xlarge: $1/hour: AWS Price List (2026-11-25)" in found["sources"]
    assert report(f"{PROFILE} {INSTANCE} --price-per-hour 3")["options"][0]["usd_per_month"] == pytest.approx(3 * 730)


def test_one_instance_at_most_scales_to_zero_only(report):
    options = report(f"{PROFILE} {INSTANCE} --cold-start 5m --max-units 1")["options"]
    assert [option["name"] for option in options] == ["endpoint, 1 x", "endpoint, 0 to 1 x"]


def test_speed_and_cold_start_may_be_results_of_tokenport_bench(tmp_path, report):
    metrics = {"ttft_s": {"mean": 0.3}, "tpot_s": {"mean": 0.02}, "tokens": {"prompt": 5000}, "num_requests": 10}
    runs = [{"load": {"kind": "closed", "concurrency": 8}}]
    (tmp_path / "speed.json").write_text(json.dumps({**BENCH, "kind": "throughput", "metrics": metrics, "runs": runs}))
    (tmp_path / "start.json").write_text(json.dumps({**BENCH, "kind": "startup", "metrics": {"ready_s": {"mean": 42.5}}}))
    found = report(f"{PROFILE} --instance ml.g6.2xlarge --bench {tmp_path}/speed.json --startup {tmp_path}/start.json")
    assert [option["name"] for option in found["options"]] == ["endpoint, 1 x", "endpoint, 1 to 16 x", "endpoint, 0 to 16 x"]
    assert "speed of an instance: 8 at once, TTFT 300 ms, TPOT 20.0 ms: speed.json, measured 2026-11-20 on NVIDIA L4" in found["sources"]
    assert "time to a new instance: 42.5 s: start.json, measured 2026-11-20 on NVIDIA L4" in found["sources"]
    assert "prompts take as long as the 500 tokens that speed.json was measured with" in found["assumed"]
    assert any("--startup has neither the machine's nor the image's time" in line for line in found["assumed"])
