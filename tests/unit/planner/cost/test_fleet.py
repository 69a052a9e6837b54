"""Instances of an endpoint, against closed forms of queueing theory and against cases by hand."""

import math

import numpy as np
import pytest

from serving.planner.cost.autoscaling import Autoscaling, fixed
from serving.planner.cost.fleet import run_fleet


def erlang_c_wait_s(rate, service_s, servers):
    """The mean wait in M/M/c: Erlang's C formula."""
    offered = rate * service_s
    blocked = offered**servers / math.factorial(servers) * servers / (servers - offered)
    probability = blocked / (sum(offered**k / math.factorial(k) for k in range(servers)) + blocked)
    return probability * service_s / (servers - offered)


@pytest.mark.parametrize(("instances", "concurrency", "busy"), [(1, 1, 0.7), (1, 8, 0.85), (2, 4, 0.85), (3, 5, 0.85)])
def test_the_mean_wait_is_erlangs(instances, concurrency, busy):
    servers, service_s, num_requests = instances * concurrency, 2.0, 200_000
    rate = busy * servers / service_s
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.exponential(1 / rate, num_requests))
    run = run_fleet(
        arrivals, rng.exponential(service_s, num_requests), concurrency=concurrency, scaling=fixed(instances), duration_s=arrivals[-1]
    )
    assert run.wait_s.mean() == pytest.approx(erlang_c_wait_s(rate, service_s, servers), rel=0.1)
    assert run.busy_s / (run.instance_s * concurrency) == pytest.approx(busy, rel=0.02)


def test_the_mean_wait_for_constant_service_is_half_of_that_for_exponential():
    rng = np.random.default_rng(6)
    arrivals = np.cumsum(rng.exponential(1.0, 200_000))
    run = run_fleet(arrivals, np.full(len(arrivals), 0.8), concurrency=1, scaling=fixed(1), duration_s=arrivals[-1])
    # Pollaczek and Khinchine: rho * service / (2 * (1 - rho)).
    assert run.wait_s.mean() == pytest.approx(0.8 * 0.8 / (2 * 0.2), rel=0.05)


def run(arrivals, services, **more):
    settings = {"concurrency": 1, "scaling": fixed(1), "duration_s": 3600.0, **more}
    return run_fleet(np.array(arrivals, dtype=float), np.array(services, dtype=float), **settings)


def test_first_come_first_served_by_hand():
    assert run([0, 1, 2, 20], [5, 5, 5, 5]).wait_s.tolist() == [0, 4, 8, 0]


def test_two_at_once_by_hand():
    assert run([0, 0, 0, 0], [4, 6, 1, 1], concurrency=2).wait_s.tolist() == [0, 0, 4, 5]


def test_a_fixed_number_is_paid_all_the_time_and_not_beyond():
    assert run([0, 3599], [10, 1000], scaling=fixed(3)).instance_s == 3 * 3600


def test_nobody_waits_where_what_finds_no_room_goes_elsewhere():
    found = run([0, 1, 6], [5, 5, 5], can_wait=False)
    assert found.is_turned_away.tolist() == [False, True, False]
    assert np.isnan(found.wait_s[1])
    assert found.busy_s == 10


SCALING = Autoscaling(min_instances=1, max_instances=2, target_concurrency=1, cold_start_s=100, scale_out_after_s=30, scale_in_after_s=60)


def test_a_second_instance_comes_after_the_metric_and_the_cold_start():
    # Two long ones at 0: above the target at 10, 20 and 30 s; decided at 30 s, ready at 130 s.
    assert run([0, 0], [1000, 1000], scaling=SCALING).wait_s.tolist() == [0, 130]


def test_an_instance_is_paid_from_the_decision_to_start_it_to_the_decision_to_stop_it():
    # Two from 30 s on; only one has work, but none is stopped while one is starting, until 130 s. The sixth period from there is at 180 s.
    found = run([0, 0], [100, 100], scaling=SCALING)
    assert found.instance_s == 3600 + (180 - 30)


def test_never_more_than_the_most():
    assert run([0] * 10, [1000] * 10, scaling=SCALING).instance_s <= 2 * 3600


def test_a_fleet_that_cannot_change_is_a_fixed_one():
    rng = np.random.default_rng(1)
    arrivals, services = np.sort(rng.random(2000) * 3600), rng.exponential(3, 2000)
    scaled = run(arrivals, services, scaling=Autoscaling(2, 2, 1, 10), concurrency=2)
    steady = run(arrivals, services, scaling=fixed(2), concurrency=2)
    assert (scaled.wait_s == steady.wait_s).all()


FROM_ZERO = Autoscaling(0, 1, target_concurrency=1, cold_start_s=100, scale_in_after_s=60, wake_after_s=60)


def test_at_zero_every_request_is_refused_until_an_instance_is_up():
    # The first at 5 s wakes it: decided at the period after 65 s, ready at 170 s.
    found = run([5, 100, 169, 171], [1, 1, 1, 1], scaling=FROM_ZERO)
    assert found.is_turned_away.tolist() == [True, True, True, False]


def test_an_idle_endpoint_goes_back_to_zero_and_costs_nothing():
    found = run([5, 171, 1000], [1, 1, 1], scaling=FROM_ZERO)
    assert found.is_turned_away.tolist() == [True, False, True]
    # Paid from 70 s, up from 170 s, stopped by the sixth idle period from there; the same again for the request at 1000 s.
    assert found.instance_s == (220 - 70) + (1210 - 1060)
    assert run([], [], scaling=FROM_ZERO).instance_s == 0


def test_more_instances_never_make_a_request_wait_longer():
    rng = np.random.default_rng(2)
    arrivals, services = np.sort(rng.random(5000) * 3600), rng.exponential(10, 5000)
    waits = [run(arrivals, services, concurrency=4, scaling=fixed(number)).wait_s for number in (3, 4, 5)]
    assert (waits[0] >= waits[1]).all()
    assert (waits[1] >= waits[2]).all()
