"""What makes a run invalid, and what is only told."""

import pytest

from benchmarks.load.plan import Plan, Request
from benchmarks.measuring.record import ClientLoad
from benchmarks.measuring.validity import judge
from tests.unit.benchmarks.measuring.synthetic import failure, stream

NUM = 20


def plan(*, is_open: bool = False, concurrency: int | None = 4) -> Plan:
    return Plan(tuple(Request(n, "x", 11, at_s=0.1 * n if is_open else None) for n in range(NUM)), concurrency=concurrency)


def client(*, lag_s: float = 0.001, cpu_share: float = 0.3) -> ClientLoad:
    return ClientLoad(0, 10.0, cpu_share, 0.01, (lag_s,) * 500, NUM)


def records(**change: float):
    return [stream(number, 0.1 * number, **change) for number in range(NUM)]


def test_a_good_run_is_valid_and_has_nothing_to_tell():
    judgement = judge(plan(is_open=True, concurrency=None), records(), [client()], interrupted=False)
    assert (judgement.invalid_reasons, judgement.warnings) == ([], [])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lag_s": 0.02}, "event loop of its process 0 was 20 ms late in the mean, 5 ms are allowed"),
        ({"cpu_share": 1.0}, "used 100% of a core"),
    ],
)
def test_a_client_that_limits_makes_it_invalid(change, word):
    (reason,) = judge(plan(), records(), [client(**change)], interrupted=False).invalid_reasons
    assert word in reason


def test_a_client_that_stood_still_now_and_then_makes_it_invalid():
    halting = ClientLoad(0, 10.0, 0.3, 0.01, (0.0005,) * 490 + (0.15,) * 10, NUM)
    (reason,) = judge(plan(), records(), [halting], interrupted=False).invalid_reasons
    assert "150 ms late at its p99, 100 ms are allowed" in reason
    late_now_and_then = ClientLoad(0, 10.0, 0.3, 0.01, (0.0005,) * 490 + (0.05,) * 10, NUM)
    assert judge(plan(), records(), [late_now_and_then], interrupted=False).invalid_reasons == []


def test_a_client_process_that_died_makes_it_invalid():
    lost = "client process 1 was killed by signal 9; what it measured is lost"
    assert judge(plan(), records(), [client()], interrupted=False, lost=[lost]).invalid_reasons == [lost]


def test_a_lag_far_below_what_is_measured_does_no_harm():
    slow = records(ttft_s=10.0)
    assert judge(plan(), slow, [client(lag_s=0.2)], interrupted=False).invalid_reasons == []


def test_late_sendings_make_it_invalid_unless_they_waited_for_a_place():
    late = records(late_s=0.3)
    (reason,) = judge(plan(is_open=True, concurrency=None), late, [client()], interrupted=False).invalid_reasons
    assert "300 ms after their time" in reason
    assert judge(plan(is_open=True, concurrency=4), late, [client()], interrupted=False).invalid_reasons == []


def test_a_run_without_a_whole_answer_is_invalid():
    (reason,) = judge(plan(), [failure(number, 0.0) for number in range(NUM)], [client()], interrupted=False).invalid_reasons
    assert "no request was answered whole; the first: refused!" in reason


def test_an_interrupted_run_is_invalid():
    (reason,) = judge(plan(), records()[:5], [client()], interrupted=True).invalid_reasons
    assert "interrupted" in reason


def test_what_a_reader_should_know_is_told():
    mixed = [*records()[:-1], failure(NUM - 1, 1.9)]
    mixed[0].output_tokens = None
    mixed[1].output_tokens = 3
    told = " ".join(judge(plan(), mixed, [client()], interrupted=False).warnings)
    assert "1 of 20 requests failed" in told
    assert "no usage for 1 answers" in told
    assert "1 answers are shorter" in told


def test_a_server_that_does_not_keep_up_is_told():
    slow = [stream(number, 0.1 * number, ttft_s=0.1 + 0.3 * number) for number in range(NUM)]
    (warning,) = judge(plan(is_open=True, concurrency=None), slow, [client()], interrupted=False).warnings
    assert "10.00 requests a second came, 2.50 were answered" in warning
