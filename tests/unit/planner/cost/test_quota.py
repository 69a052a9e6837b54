"""Quotas by the minute, and clients that try again."""

import numpy as np
import pytest

from serving.planner.cost.quota import Quota, admit
from serving.planner.cost.requests import Requests


def requests(arrivals, input_tokens=10, output_tokens=10):
    arrival_s = np.array(arrivals, dtype=float)
    return Requests(arrival_s, np.full(len(arrivals), float(input_tokens)), np.full(len(arrivals), float(output_tokens)), 3600.0)


def test_without_limits_nobody_waits():
    wait_s, is_refused = admit(requests([0] * 50), Quota())
    assert not wait_s.any()
    assert not is_refused.any()


def test_what_is_above_the_limit_is_refused_after_its_attempts():
    _, is_refused = admit(requests([0, 1, 2, 61]), Quota(requests_per_minute=2, num_attempts=3))
    assert is_refused.tolist() == [False, False, True, False]


def test_a_request_that_tries_again_once_the_minute_is_over_is_let_in():
    wait_s, is_refused = admit(requests([0, 59.9999]), Quota(requests_per_minute=1, num_attempts=2))
    assert not is_refused.any()
    assert 0 < wait_s[1] <= 1


def test_one_attempt_is_one_attempt():
    _, is_refused = admit(requests([0, 59.9999]), Quota(requests_per_minute=1, num_attempts=1))
    assert is_refused.tolist() == [False, True]


@pytest.mark.parametrize(
    ("quota", "num_let_in"),
    [
        (Quota(tokens_per_minute=100, num_attempts=1), 5),
        (Quota(input_tokens_per_minute=30, num_attempts=1), 3),
        (Quota(output_tokens_per_minute=70, num_attempts=1), 7),
        (Quota(requests_per_minute=4, tokens_per_minute=100, num_attempts=1), 4),
    ],
)
def test_the_tightest_limit_holds(quota, num_let_in):
    _, is_refused = admit(requests(range(10)), quota)
    assert (~is_refused).sum() == num_let_in


def test_no_sixty_seconds_carry_more_than_the_limit():
    rng = np.random.default_rng(0)
    load = requests(np.sort(rng.random(2000) * 3600))
    wait_s, is_refused = admit(load, Quota(tokens_per_minute=400, num_attempts=4), seed=1)
    let_in = np.sort((load.arrival_s + wait_s)[~is_refused])
    for time in let_in:
        # 1e-6: a request 60 s after another is out of its minute, whatever the rounding.
        assert ((let_in > time - 60 + 1e-6) & (let_in <= time)).sum() * 20 <= 400


def test_a_larger_quota_never_refuses_more_and_equal_seeds_give_equal_outcomes():
    load = requests(np.sort(np.random.default_rng(0).random(3000) * 3600))
    refused = [admit(load, Quota(requests_per_minute=limit), seed=1)[1].sum() for limit in (20, 40, 60, 80)]
    assert refused == sorted(refused, reverse=True)
    again = [admit(load, Quota(requests_per_minute=40), seed=1) for _ in range(2)]
    assert (again[0][0] == again[1][0]).all()
