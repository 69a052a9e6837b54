"""How a plan is divided among processes."""

import pytest

from benchmarks.client.division import choose_num_processes, divided
from benchmarks.load.plan import Plan, Request


def numbers(plans: list[Plan]) -> list[list[int]]:
    return [[request.number for request in plan.requests] for plan in plans]


@pytest.mark.parametrize(
    ("concurrency", "rate", "num_cpus", "expected"),
    [
        (1, None, 2, 1),
        (512, None, 64, 1),
        (513, None, 64, 2),
        (4096, None, 64, 8),
        (4096, None, 2, 1),
        (None, 100.0, 64, 1),
        (None, 1000.0, 64, 5),
        (None, None, 1, 1),
    ],
)
def test_one_process_unless_the_load_is_large(concurrency, rate, num_cpus, expected):
    assert choose_num_processes(concurrency, rate, num_cpus) == expected


def test_places_and_their_requests_are_divided_alike():
    plans = divided(Plan(tuple(Request(number, "p", 1) for number in range(10)), concurrency=5, duration_s=3.0), 2)
    assert [plan.concurrency for plan in plans] == [3, 2]
    assert numbers(plans) == [[0, 2, 4, 5, 7, 9], [1, 3, 6, 8]]
    assert all(plan.duration_s == 3.0 for plan in plans)


def test_an_open_loop_is_dealt_in_turn():
    plans = divided(Plan(tuple(Request(number, "p", 1, at_s=float(number)) for number in range(5))), 2)
    assert numbers(plans) == [[0, 2, 4], [1, 3]]
    assert [plan.concurrency for plan in plans] == [None, None]


def test_a_conversation_stays_in_one_process():
    requests = tuple(Request(number, "p", 1, conversation=number % 3) for number in range(9))
    assert numbers(divided(Plan(requests, concurrency=3), 3)) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_no_process_is_without_work():
    assert len(divided(Plan((Request(0, "p", 1), Request(1, "p", 1)), concurrency=8), 4)) == 2
    assert len(divided(Plan(tuple(Request(number, "p", 1) for number in range(9)), concurrency=1), 4)) == 1
