"""What each way costs and does to a load: money by hand, and every request accounted for once."""

import numpy as np
import pytest

from serving.planner.cost.autoscaling import Autoscaling, fixed
from serving.planner.cost.functions import Function, cold_starts
from serving.planner.cost.options import Endpoint, Mixture, OnDemand, Provisioned
from serving.planner.cost.outcome import Slo, Speed, measure
from serving.planner.cost.prices import LambdaPrice, OnDemandPrice, ProvisionedPrice
from serving.planner.cost.profiles import profile
from serving.planner.cost.quota import Quota
from serving.planner.cost.requests import Requests, draw

SPEED = Speed(ttft_s=1.0, tpot_s=0.1)
PRICE = OnDemandPrice("a", 2.0, 8.0, None, "2026-01", "a test")
UNIT = ProvisionedPrice("a", "1-month", 40.0, 60_000, 6_000, None, "2026-01", "a test")
ON_DEMAND = OnDemand(PRICE, Quota(), SPEED)
SLO = Slo(ttft_s=2.0, e2e_s=30.0)


def endpoint(scaling, concurrency=4):
    return Endpoint("ml.g6.2xlarge", 1.5, "a test", concurrency, SPEED, scaling)


def function(keep_warm_s=0.0):
    return Function(LambdaPrice("arm64", 1e-5, 0.2, None, "2026-01", "a test"), 0.5, 3.0, keep_warm_s, ON_DEMAND)


def one_hour(num_requests=73, input_tokens=1000.0, output_tokens=11.0):
    arrivals = np.linspace(0, 3599, num_requests)
    return Requests(arrivals, np.full(num_requests, input_tokens), np.full(num_requests, output_tokens), 3600.0)


def test_on_demand_is_paid_by_the_token():
    run = ON_DEMAND.run(one_hour())
    # 73 requests in one of 730 hours: 53,290 a month, of 1000 tokens at $2 and 11 at $8 a million.
    assert run.usd_per_month == pytest.approx(53_290 * (1000 * 2 + 11 * 8) / 1e6)
    assert run.million_tokens_per_month == pytest.approx(53_290 * 1011 / 1e6)
    assert run.outcome.e2e_s[0] == pytest.approx(1.0 + 10 * 0.1)


def test_what_is_throttled_is_not_paid():
    run = OnDemand(PRICE, Quota(requests_per_minute=1, num_attempts=1), SPEED).run(one_hour(num_requests=120))
    num_served = int((~run.outcome.is_refused).sum())
    assert num_served == pytest.approx(60, abs=2)
    assert run.usd_per_month == pytest.approx(730 * num_served * (1000 * 2 + 11 * 8) / 1e6)


def test_provisioned_units_are_paid_every_hour_and_carry_their_tokens():
    run = Provisioned(UNIT, 2, SPEED).run(one_hour(num_requests=60))
    assert run.usd_per_month == 730 * 2 * 40
    # 60 x 1000 input tokens in 60 minutes of 2 x 60,000.
    assert run.utilisation == pytest.approx(1000 / 120_000)


def test_an_instance_is_paid_every_hour():
    run = endpoint(fixed(2)).run(one_hour(num_requests=36))
    assert run.usd_per_month == pytest.approx(730 * 2 * 1.5)
    assert run.num_instances == 2
    assert run.utilisation == pytest.approx(36 * 2.0 / (2 * 4 * 3600))


def test_a_mixture_pays_the_instance_and_the_tokens_of_what_found_no_room():
    burst = Requests(np.zeros(6), np.full(6, 1000.0), np.full(6, 11.0), 3600.0)
    run = Mixture(endpoint(fixed(1)), ON_DEMAND).run(burst)
    assert run.usd_per_month == pytest.approx(730 * 1.5 + 730 * 2 * (1000 * 2 + 11 * 8) / 1e6)
    assert run.outcome.wait_s.tolist() == [0] * 6
    assert not run.outcome.is_refused.any()


def test_a_function_is_paid_by_call_and_by_time_on_top_of_the_tokens():
    run = function().run(one_hour())
    # 53,290 calls of 2 s of answer and 3 s of cold start with half a GB.
    expected = 53_290 * (5.0 * 0.5 * 1e-5 + 0.2 / 1e6)
    assert run.usd_per_month == pytest.approx(ON_DEMAND.run(one_hour()).usd_per_month + expected)
    assert run.outcome.ttft_s[0] == pytest.approx(3.0 + 1.0)


def test_environments_stay_warm_as_long_as_said_and_take_one_request_at_a_time():
    arrivals, work = np.array([0.0, 1.0, 20.0, 21.0, 200.0]), np.full(5, 5.0)
    assert cold_starts(arrivals, work, cold_start_s=2, keep_warm_s=60).tolist() == [True, True, False, False, True]
    assert cold_starts(arrivals, work, cold_start_s=2, keep_warm_s=0).all()


OPTIONS = [
    ON_DEMAND,
    OnDemand(PRICE, Quota(tokens_per_minute=3000), SPEED),
    OnDemand(PRICE, Quota(tokens_per_minute=3000), None),
    Provisioned(UNIT, 1, SPEED),
    endpoint(fixed(1), concurrency=1),
    endpoint(Autoscaling(1, 3, 2.8, 200)),
    endpoint(Autoscaling(0, 3, 2.8, 200)),
    Mixture(endpoint(Autoscaling(0, 3, 2.8, 200)), OnDemand(PRICE, Quota(requests_per_minute=5), SPEED)),
    function(keep_warm_s=300),
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@pytest.mark.parametrize("shape", ["bursty", "sporadic"])
def test_every_request_is_in_time_late_or_refused_exactly_once(option, shape):
    requests = draw(profile(shape, 1500, 200, 50), seed=4)
    run = option.run(requests)
    found = measure(run.outcome, SLO)
    assert found.share_in_time + found.share_late + found.share_refused == pytest.approx(1)
    assert min(found.share_in_time, found.share_late, found.share_refused) >= 0
    assert (np.isnan(run.outcome.wait_s) == run.outcome.is_refused).all()
    served = requests.where(~run.outcome.is_refused)
    tokens = (served.input_tokens.sum() + served.output_tokens.sum()) / 1e6
    assert run.million_tokens_per_month == pytest.approx(tokens * 730 / 168)
    assert run.usd_per_month == pytest.approx(sum(charge.quantity * charge.usd_per_unit for charge in run.charges))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_simulation_is_repeated_by_its_seed(option):
    first, again = (option.run(draw(profile("bursty", 1500, 200, 50), seed=4)) for _ in range(2))
    assert first.usd_per_month == again.usd_per_month
    assert np.array_equal(first.outcome.e2e_s, again.outcome.e2e_s, equal_nan=True)


def test_twice_the_load_costs_twice_on_demand_and_the_same_provisioned():
    once, twice = (draw(profile("flat", number, 200, 50)) for number in (2400, 4800))
    assert ON_DEMAND.run(twice).usd_per_month == pytest.approx(2 * ON_DEMAND.run(once).usd_per_month)
    assert Provisioned(UNIT, 1, SPEED).run(twice).usd_per_month == Provisioned(UNIT, 1, SPEED).run(once).usd_per_month


def test_a_longer_cold_start_makes_more_requests_late():
    requests = draw(profile("bursty", 20_000, 200, 50), seed=1)
    late = [
        measure(endpoint(Autoscaling(1, 8, 2.8, cold_start_s)).run(requests).outcome, SLO).share_late for cold_start_s in (30, 300, 900)
    ]
    assert late == sorted(late)
    assert late[0] < late[-1]


def test_a_latency_that_is_not_known_is_not_said_to_hold():
    run = OnDemand(PRICE, Quota(), None).run(one_hour())
    assert measure(run.outcome, SLO).holds_slo is None
    assert measure(run.outcome, Slo(wait_s=1.0)).holds_slo is True
    assert measure(run.outcome, SLO).e2e_s == {"p50": None, "p90": None, "p99": None}


def test_the_share_that_must_hold_counts_the_refused():
    run = OnDemand(PRICE, Quota(requests_per_minute=1, num_attempts=1), SPEED).run(one_hour(num_requests=120))
    assert measure(run.outcome, Slo(e2e_s=30.0, share=0.99)).holds_slo is False
    assert measure(run.outcome, Slo(e2e_s=30.0, share=0.4)).holds_slo is True
