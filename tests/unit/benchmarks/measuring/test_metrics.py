"""Metrics of made-up records: the numbers that must come out."""

import pytest

from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.record import Record, from_json
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.timing import DEFINITIONS, e2e_s, itl_s, tpot_s, ttft_s
from benchmarks.measuring.window import steady_window, whole_run
from tests.unit.benchmarks.measuring.synthetic import closed_loop, failure, stream


def test_latencies_run_from_the_scheduled_time_and_from_send_apart():
    late = stream(0, 1.0, late_s=0.5)
    assert ttft_s(late) == pytest.approx(0.6)
    assert ttft_s(late, from_send=True) == pytest.approx(0.1)
    assert e2e_s(late) == pytest.approx(0.8)
    assert e2e_s(late, from_send=True) == pytest.approx(0.3)
    assert tpot_s(late) == pytest.approx(0.02)
    assert itl_s(late) == pytest.approx([0.02] * 10)


def test_tokens_that_come_together_do_not_make_the_time_per_token_wrong():
    told = stream(0, 0.0, num_tokens=12, per_piece=3, gap_s=0.06, says_pieces=True)
    assert tpot_s(told) == pytest.approx(0.02)
    # Only their sum is known: the field's (n - 1) remains.
    assert tpot_s(stream(0, 0.0, num_tokens=12, per_piece=3, gap_s=0.06)) == pytest.approx(0.18 / 11)


def test_an_answer_that_comes_whole_has_no_time_to_first_token():
    answer = Record(0, 0.0, 11, sent_s=0.0, arrivals_s=[0.4], ended_s=0.4, output_tokens=11, is_streamed=False)
    assert (ttft_s(answer), tpot_s(answer), itl_s(answer)) == (None, None, [])
    assert e2e_s(answer) == pytest.approx(0.4)


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_one_token_has_no_time_per_token(num_tokens):
    assert tpot_s(stream(0, 0.0, num_tokens=num_tokens or 1)) is None


def test_a_closed_loop_has_its_steady_rate():
    records = closed_loop(num_waves=10, concurrency=4)
    window = steady_window(records, is_open=False)
    found = metrics(records, window)
    assert (window.start_s, window.end_s) == pytest.approx((0.3, 2.7))
    # Four streams of 11 tokens each 0.3 s.
    assert found["output_tokens_per_s"] == pytest.approx(4 * 11 / 0.3, rel=0.05)
    assert found["requests_per_s"] == pytest.approx(4 / 0.3)
    assert found["mean_concurrency"] == pytest.approx(4)
    assert found["whole_run"]["output_tokens_per_s"] == pytest.approx(40 * 11 / 3.0)
    assert found["whole_run"]["duration_s"] == pytest.approx(3.0)


def test_failed_requests_count_and_never_vanish():
    records = [stream(number, 0.1 * number) for number in range(8)] + [failure(8, 0.8), failure(9, 0.9, "broken")]
    found = metrics(records, whole_run(records), Slo(ttft_s=1.0))
    assert (found["num_requests"], found["num_completed"], found["num_failed"]) == (10, 8, 2)
    assert found["errors"] == {"refused": 1, "broken": 1}
    assert found["goodput"]["share"] == pytest.approx(0.8)
    assert found["ttft_s"]["num_samples"] == 8


def test_goodput_leaves_out_what_misses_a_limit():
    records = [stream(number, 0.1 * number, ttft_s=0.1 if number % 2 else 0.9) for number in range(20)]
    window = whole_run(records)
    found = metrics(records, window, Slo(ttft_s=0.5, tpot_s=0.03))
    assert found["goodput"]["share"] == pytest.approx(0.5)
    assert found["goodput"]["output_tokens_per_s"] == pytest.approx(found["output_tokens_per_s"] / 2)
    assert metrics(records, window, Slo(tpot_s=0.01))["goodput"]["share"] == 0


def test_tokens_are_the_servers_and_checked_against_the_stream():
    honest, boasting = stream(0, 0.0), stream(1, 0.0)
    boasting.output_tokens = 5
    counted = metrics([honest, boasting], whole_run([honest, boasting]))["tokens"]
    assert (counted["output"], counted["num_mismatches"], counted["counted_by"]) == (16, 1, "usage")
    silent = stream(2, 0.0)
    silent.output_tokens = None
    counted = metrics([silent], whole_run([silent]))["tokens"]
    assert (counted["output"], counted["counted_by"], counted["num_mismatches"]) == (11, "stream", 0)


def test_a_record_survives_its_file():
    record = stream(3, 1.0, says_pieces=True)
    again = from_json(record.to_json())
    assert again.arrivals_s == pytest.approx(record.arrivals_s, abs=1e-6)
    assert (again.number, again.arrival_tokens, again.is_whole) == (3, record.arrival_tokens, True)


def test_every_metric_is_defined():
    records = closed_loop(2, 2)
    found = metrics(records, whole_run(records))
    explained = set(DEFINITIONS) | {
        "duration_s",
        "window_s",
        "num_requests",
        "num_completed",
        "num_failed",
        "errors",
        "whole_run",
        "total_tokens_per_s",
    }
    assert set(found) <= explained
