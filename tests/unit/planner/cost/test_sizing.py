"""The fewest units that hold the SLO, and from how much load on they are cheaper than an API."""

import re

import pytest

from serving.planner.cost.autoscaling import fixed
from serving.planner.cost.break_even import Units, break_even, on_demand_usd
from serving.planner.cost.capacity import Capacity
from serving.planner.cost.case import Api, Case, Own, evaluated
from serving.planner.cost.load import Hour, Load
from serving.planner.cost.options import Endpoint, Mixture, OnDemand, Provisioned
from serving.planner.cost.outcome import Slo, Speed
from serving.planner.cost.prices import OnDemandPrice, ProvisionedPrice
from serving.planner.cost.profiles import profile
from serving.planner.cost.quota import Quota
from serving.planner.cost.requests import draw
from serving.planner.cost.sizing import evaluate, smallest

SPEED = Speed(ttft_s=0.5, tpot_s=0.02)
PRICE = OnDemandPrice("a", 1.0, 4.0, None, "2026-01", "a test")
SLO = Slo(wait_s=1.0)


def flat(requests_per_day, input_tokens=500, output_tokens=100):
    return Load(profile("flat", requests_per_day, input_tokens, output_tokens).hours[:24], "a flat day")


LOAD = flat(1000)


def endpoint(num_instances, concurrency=4):
    return Endpoint("ml.g6.2xlarge", 1.0, "a test", concurrency, SPEED, fixed(num_instances))


def attempt(load, slo, **more):
    requests = draw(load)
    return lambda num_units: evaluate(endpoint(num_units, **more), requests, slo)


def test_the_fewest_units_that_hold_are_found():
    # 100,000 requests a day of 2.48 s are 2.9 at once on average, and an instance has one place.
    tried = attempt(flat(100_000), SLO, concurrency=1)
    num_units, found = smallest(tried, 16)
    assert found.holds
    assert 3 < num_units < 16
    assert not tried(num_units - 1).holds


def test_the_most_are_not_exceeded():
    num_units, found = smallest(attempt(flat(200_000), SLO, concurrency=1), 2)
    assert num_units == 2
    assert not found.holds


def test_units_are_not_added_where_answers_are_too_slow_without_any_wait():
    num_units, found = smallest(attempt(LOAD, Slo(e2e_s=0.6)), 16)
    assert num_units == 1
    assert not found.holds


def units(usd_per_hour, most=8, **more):
    return Units("endpoint", lambda number: endpoint(number, **more), usd_per_hour, most)


def found(some, load=LOAD, slo=SLO):
    return break_even(some, PRICE, load, draw, slo)


def test_the_break_even_is_where_the_tokens_cost_what_the_hour_does():
    # A request costs 500 x $1 + 100 x $4 a million = $0.0009: $1 an hour is 26,667 of them a day.
    point = found(units(1.0))
    assert point.requests_per_day == pytest.approx(24 / 0.0009)
    assert point.num_units == 1
    requests = draw(LOAD.scaled(point.requests_per_day / 1000))
    own, api = endpoint(1).run(requests), OnDemand(PRICE, Quota(), SPEED).run(requests)
    assert own.usd_per_month == pytest.approx(api.usd_per_month, rel=1e-3)


def test_it_moves_with_the_price_and_the_length():
    assert found(units(0.5)).requests_per_day == pytest.approx(found(units(1.0)).requests_per_day / 2)
    longer = found(units(1.0), load=flat(1000, 1000, 200))
    assert longer.requests_per_day == pytest.approx(found(units(1.0)).requests_per_day / 2)


def test_it_does_not_depend_on_the_load_it_starts_from():
    assert found(units(1.0), load=flat(17)).requests_per_day == pytest.approx(found(units(1.0)).requests_per_day)


def test_units_that_cannot_carry_what_they_cost_have_none():
    # At 26,667 requests a day one place is busy 78 % of the time, and at that many wait longer than a second.
    point = found(units(1.0, most=1, concurrency=1))
    assert point.requests_per_day is None
    assert "1 cost the same at 26,667 requests a day, and do not hold the SLO there" in point.why_not


def test_more_units_share_their_queue_and_may_have_one():
    assert found(units(1.0, concurrency=1)).num_units > 1


def test_answers_slower_than_the_slo_have_none_at_any_load():
    point = found(units(1.0), slo=Slo(e2e_s=0.6))
    assert point.requests_per_day is None
    assert "longer than the SLO allows even where nobody waits" in point.why_not


def test_more_requests_than_are_simulated_are_told():
    point = found(units(100_000.0))
    assert point.requests_per_day is None
    assert "2,666,666,667 requests a day, more than are simulated" in point.why_not


def test_fewer_requests_than_are_simulated_are_told():
    # A cent a day: 11 requests a day, less than one an hour.
    point = found(units(0.01 / 24))
    assert point.requests_per_day is None
    assert "the same at 11 requests a day, less than one in the busiest hour" in point.why_not


@pytest.mark.parametrize("usd_per_hour", [0.01, 1.0])
def test_the_instances_under_an_api_are_the_cheapest_number_of_all(usd_per_hour):
    load = flat(20_000)
    requests = draw(load)
    own = Own("ml.g6.2xlarge", usd_per_hour, "a test", Capacity(1, SPEED, "a test"))
    mixture = next(one for one in evaluated(Case(load, SLO, Api(OnDemand(PRICE, Quota(), SPEED)), own)) if isinstance(one.option, Mixture))
    tried = [evaluate(Mixture(own.endpoint(fixed(base)), OnDemand(PRICE, Quota(), SPEED)), requests, SLO) for base in range(1, 17)]
    assert mixture.run.usd_per_month == min(one.run.usd_per_month for one in tried)


def test_model_units_have_one_as_well():
    price = ProvisionedPrice("a", "none", 1.0, 40_000, 8_000, None, "2026-01", "a test")
    point = found(Units("provisioned", lambda number: Provisioned(price, number, None), 1.0, 8))
    assert point.requests_per_day == pytest.approx(24 / 0.0009)
    assert point.utilisation == pytest.approx(24 / 0.0009 / 1440 * 500 / 40_000, rel=0.01)


def test_units_that_carry_the_hour_of_most_output_and_not_that_of_most_input_have_none():
    price = ProvisionedPrice("a", "none", 1.0, 40_000, 8_000, None, "2026-01", "a test")
    some = Units("provisioned", lambda number: Provisioned(price, number, None), 1.0, 8)
    output = (Hour(100, 100, 500),) * 9
    assert found(some, load=Load((*output, Hour(100, 1000, 100)), "a test")).requests_per_day is not None
    # 341 requests of that hour cost what a unit does: 3.4 million tokens where it carries 2.4 million an hour.
    point = found(some, load=Load((*output, Hour(100, 10_000, 100)), "a test"))
    assert point.requests_per_day is None
    assert "each would have to carry 14" in point.why_not


def test_what_units_would_have_to_carry_goes_with_their_price():
    price = ProvisionedPrice("a", "none", 1.0, 40_000, 8_000, None, "2026-01", "a test")
    load = Load((Hour(100, 5000, 100), *(Hour(10, 5000, 100),) * 9), "a test")
    told = [
        found(Units("provisioned", lambda number: Provisioned(price, number, None), usd_per_hour, 8), load=load).why_not
        for usd_per_hour in (0.5, 1.0, 2.0)
    ]
    # $1 an hour are 185 requests of $0.0054 on average and 975 in the busiest hour: 4.9 million input tokens where it carries 2.4 million.
    percents = [int(re.search(r"carry (\d+) %", line)[1]) for line in told]
    assert percents == pytest.approx([101.5, 203, 406], rel=0.03)


def test_an_api_costs_its_tokens():
    assert on_demand_usd(PRICE, LOAD) == pytest.approx(0.9)
