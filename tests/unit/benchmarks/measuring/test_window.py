"""The steady window: ramp and drain are left out, a stall is not."""

import pytest

from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.window import steady_window, whole_run
from tests.unit.benchmarks.measuring.synthetic import closed_loop, failure, stream


def test_the_drain_of_a_closed_loop_is_left_out():
    # The last wave has one long answer, during which three of four places are empty.
    records = closed_loop(num_waves=10, concurrency=4)
    records.append(stream(40, 2.7, num_tokens=200))
    window = steady_window(records, is_open=False)
    assert window.end_s == pytest.approx(2.7)
    assert whole_run(records).end_s > 6
    found = metrics(records, window)
    assert found["output_tokens_per_s"] == pytest.approx(4 * 11 / 0.3, rel=0.05)
    # Its latency counts all the same.
    assert found["e2e_s"]["max"] == pytest.approx(0.1 + 199 * 0.02)


def test_a_run_of_one_wave_counts_whole_and_says_so():
    records = closed_loop(num_waves=1, concurrency=8)
    window = steady_window(records, is_open=False)
    assert not window.is_steady
    assert "whole run" in window.how
    assert metrics(records, window)["num_requests"] == 8


def test_an_open_loop_leaves_out_one_answers_time_and_the_drain():
    records = [stream(number, 0.1 * number) for number in range(100)]
    window = steady_window(records, is_open=True)
    assert (window.start_s, window.end_s) == pytest.approx((0.3, 9.9))


@pytest.mark.parametrize("stalled", [range(0, 10), range(45, 55), range(90, 100)])
def test_a_stall_is_never_taken_for_a_ramp(stalled):
    # Requests come every 0.1 s; those due in one second are all answered 2 s late.
    records = [stream(number, 0.1 * number, ttft_s=2.1 if number in stalled else 0.1) for number in range(100)]
    found = metrics(records, steady_window(records, is_open=True))
    assert found["ttft_s"]["max"] == pytest.approx(2.1)
    assert found["ttft_s"]["p90"] > 0.1 - 1e-9
    assert found["ttft_s"]["mean"] > 0.2


def test_nothing_sent_is_no_window():
    assert steady_window([], is_open=True).length_s == 0
    unsent = failure(0, 0.0)
    unsent.sent_s = None
    assert steady_window([unsent], is_open=False).length_s == 0
    assert metrics([unsent], steady_window([unsent], is_open=False))["output_tokens_per_s"] is None
