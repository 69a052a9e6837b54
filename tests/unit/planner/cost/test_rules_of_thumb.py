"""The four rules of thumb of "when to choose which", held against the simulation at the prices that come along.

Speeds, quotas and what a model unit carries are examples: the tests say for which of them a rule holds and for which it does not. Where it
does not, docs/planning-cost.md says so too.
"""

from functools import cache

import pytest

from serving.planner.commands.cost_case import read_case
from serving.planner.commands.cost_options import add_options
from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.cost.case import cheapest, evaluated

TOKENS = "--input-tokens 1000 --output-tokens 200"
SONNET = f"{TOKENS} --api-model anthropic.claude-3-sonnet-20240229-v1:0 --mu-input-tpm 300000 --mu-output-tpm 60000 --slo wait=1s"
LLAMA = f"{TOKENS} --api-model meta.llama3-1-8b-instruct-v1:0 --api-speed ttft=500ms,tpot=20ms --slo ttft=3s,e2e=90s"
INSTANCE = "--instance ml.g6.2xlarge --capacity concurrency=16,ttft=600ms,tpot=40ms"
PROVISIONED = "provisioned, 1 x, no commitment"


@pytest.fixture(scope="module")
def options():
    """Every option by its name, and the name of the cheapest that holds the SLO."""

    @cache
    def of(words):
        parser = OneLineParser(prog="tokenport plan cost")
        add_options(parser)
        found = evaluated(read_case(parser.parse(words.split()))[0])
        best = cheapest(found)
        return {one.option.name: one for one in found}, best and best.option.name

    return of


def usd(one):
    return one.run.usd_per_month


class TestStableAndStrictIsForProvisioned:
    def test_holds_where_the_quota_is_no_larger_than_the_load(self, options):
        # 20,000 requests a day of 1,200 tokens are 16,667 tokens a minute on average.
        found, best = options(f"--profile flat --requests-per-day 20000 --tokens-per-minute 20000 {SONNET}")
        assert best == PROVISIONED
        assert found["on-demand"].measures.share_refused > 0.05

    def test_does_not_hold_where_the_quota_is_large_enough(self, options):
        found, best = options(f"--profile flat --requests-per-day 20000 --tokens-per-minute 40000 {SONNET}")
        assert best == "on-demand"
        assert found["on-demand"].measures.share_in_time > 0.999
        # As docs/planning-cost.md has them.
        assert round(usd(found["on-demand"])) == 3648
        assert round(usd(found[PROVISIONED])) == 64_240

    def test_is_a_matter_of_load_not_of_steadiness(self, report):
        steady, uneven = (
            report(f"--profile {shape} --requests-per-day 5000 {SONNET} --max-units 64")["break_even"][0]
            for shape in ("flat", "business-hours")
        )
        assert steady["requests_per_day"] == pytest.approx(352_000)
        # An uneven load must leave its units idle most of the time: it never pays.
        assert uneven["requests_per_day"] is None


class TestBurstsDevelopmentAndManyModelsAreForOnDemand:
    def test_holds_for_bursts(self, options):
        found, best = options(f"--profile bursty --requests-per-day 20000 {LLAMA} {INSTANCE} --cold-start 8m")
        assert best == "on-demand"
        assert usd(found["endpoint, 2 x"]) > 10 * usd(found["on-demand"])

    def test_scaling_comes_too_late_for_a_burst_unless_on_demand_takes_it(self, options):
        found, _ = options(f"--profile bursty --requests-per-day 20000 {LLAMA} {INSTANCE} --cold-start 8m")
        assert found["endpoint, 1 to 16 x"].measures.holds_slo is False
        assert found["endpoint, 1 to 16 x + on-demand"].measures.holds_slo is True

    def test_holds_for_development(self, options):
        found, best = options(f"--profile business-hours --requests-per-day 50 {LLAMA} {INSTANCE} --cold-start 8m")
        assert best == "on-demand"
        assert all(usd(one) > 500 * usd(found[best]) for name, one in found.items() if name.startswith("endpoint"))
        # Asleep whenever somebody comes back to it.
        assert 0.4 < found["endpoint, 0 to 16 x"].measures.share_refused < 0.5
        # As docs/planning-cost.md has them.
        assert [round(usd(found[name]), 1) for name in (best, "endpoint, 1 x", "endpoint, 0 to 16 x")] == [0.4, 892.1, 275.0]

    def test_holds_for_many_models(self, options):
        one_of_ten, _ = options(f"--profile flat --requests-per-day 2000 {LLAMA} {INSTANCE}")
        all_in_one, _ = options(f"--profile flat --requests-per-day 20000 {LLAMA} {INSTANCE}")
        assert 10 * usd(one_of_ten["on-demand"]) == pytest.approx(usd(all_in_one["on-demand"]))
        # Each needs an instance, which could carry the load of all ten.
        assert usd(one_of_ten["endpoint, 1 x"]) == usd(all_in_one["endpoint, 1 x"])
        # As docs/planning-cost.md has them.
        assert round(usd(all_in_one["on-demand"])) == 161
        assert round(10 * usd(one_of_ten["endpoint, 1 x"])) == 8921

    def test_does_not_hold_where_the_burst_is_above_the_quota(self, options):
        found, best = options(f"--profile bursty --requests-per-day 20000 --tokens-per-minute 30000 {LLAMA} {INSTANCE}")
        assert found["on-demand"].measures.share_refused > 0.2
        assert best == "endpoint, 2 x"


class TestOwnWeightsAreForAnEndpoint:
    # Long requests: as many tokens in fewer of them to simulate.
    WORDS = (
        "--input-tokens 5000 --output-tokens 1000 --api-model meta.llama3-1-8b-instruct-v1:0 --api-speed ttft=1s,tpot=20ms "
        "--slo ttft=5s,e2e=5m --instance ml.g6.2xlarge --capacity concurrency=16,ttft=2s,tpot=40ms"
    )

    def test_holds_where_nobody_sells_them_by_the_token(self, options):
        found, best = options(f"--profile flat --requests-per-day 2000 {TOKENS} --slo ttft=3s,e2e=90s {INSTANCE}")
        assert set(found) == {"endpoint, 1 x"} == {best}

    def test_costs_many_times_the_api_where_the_load_is_small(self, options):
        found, _ = options(f"--profile business-hours --requests-per-day 400 {self.WORDS}")
        assert usd(found["endpoint, 1 x"]) > 50 * usd(found["on-demand"])

    def test_pays_for_steady_load_from_a_break_even_on(self, report):
        found = report(f"--profile flat --requests-per-day 100 {self.WORDS}")["break_even"][0]
        # $1.222 an hour are 22,218 requests of 6,000 tokens a day at $0.22 a million: more than one instance holds, so two at twice that.
        assert found["num_units"] == 2
        assert found["requests_per_day"] == pytest.approx(2 * 24 * 1.222 / (6000 * 0.22 / 1e6))

    def test_never_pays_for_business_hours_at_this_price_and_speed(self, report):
        assert report(f"--profile business-hours --requests-per-day 100 {self.WORDS}")["break_even"][0]["requests_per_day"] is None

    def test_the_base_on_an_endpoint_and_the_rest_on_demand_pays_before_a_second_instance(self, options):
        found, best = options(f"--profile flat --requests-per-day 28000 {self.WORDS}")
        assert best == "endpoint, 1 x + on-demand"
        assert usd(found[best]) < usd(found["on-demand"]) < usd(found["endpoint, 2 x"])


class TestSporadicEventsAreForLambda:
    WORDS = f"--profile sporadic --requests-per-day 100 {LLAMA} {INSTANCE} --cold-start 8m --lambda-cold-start 1s"

    def test_holds_against_every_endpoint(self, options):
        found, _ = options(self.WORDS)
        function = found["lambda + on-demand"]
        assert function.holds
        assert all(usd(function) < usd(one) / 30 for name, one in found.items() if name.startswith("endpoint"))

    def test_does_not_hold_against_the_api_alone_which_needs_no_function(self, options):
        found, best = options(self.WORDS)
        assert best == "on-demand"
        assert usd(found["on-demand"]) < usd(found["lambda + on-demand"])

    def test_an_endpoint_that_sleeps_refuses_those_that_wake_it(self, options):
        found, _ = options(self.WORDS)
        assert found["endpoint, 0 to 16 x"].measures.share_refused > 0.1
        assert found["endpoint, 0 to 16 x + on-demand"].measures.share_refused == 0
