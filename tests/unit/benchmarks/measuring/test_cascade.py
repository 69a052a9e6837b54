"""What a cascade did, by hand: who answered, what it cost, and how long deciding took by the server's histogram."""

import pytest

from benchmarks.client.questions import Answered
from benchmarks.measuring.cascade import deciding, summary

HISTOGRAM = """\
# TYPE tokenport_cascade_deciding_seconds histogram
tokenport_cascade_deciding_seconds_bucket{{le="0.001"}} {fast}
tokenport_cascade_deciding_seconds_bucket{{le="0.005"}} {most}
tokenport_cascade_deciding_seconds_bucket{{le="+Inf"}} {all}
tokenport_cascade_deciding_seconds_sum {total}
"""


def answered(quality, tier, **more):
    return Answered("q", "auto", quality=quality, tier=tier, decision="accepted", **more)


def test_shares_and_means_are_of_the_answers_that_came():
    answers = [
        answered(1.0, "small", cost_usd=1.0, ttft_s=0.1, hold_s=0.05),
        answered(0.0, "small", cost_usd=2.0, ttft_s=0.2),
        answered(1.0, "large", cost_usd=6.0, ttft_s=0.3),
        Answered("q", "auto", error="HTTP 502: no"),
    ]
    found = summary(answers, "large")
    assert (found["num_requests"], found["num_failed"]) == (4, 1)
    assert found["quality"] == 0.5, "one that failed is not right"
    assert found["cost_usd"] == pytest.approx(3.0)
    assert found["share_large"] == pytest.approx(1 / 3)
    assert found["decisions"] == {"small accepted": 2, "large accepted": 1}
    assert found["hold_s"]["num_samples"] == 1


def test_a_cost_that_the_server_does_not_tell_is_none():
    assert summary([answered(1.0, "small")], "large")["cost_usd"] is None


def test_decisions_before_the_run_do_not_count():
    before = HISTOGRAM.format(fast=100, most=100, all=100, total=0.01)
    after = HISTOGRAM.format(fast=150, most=199, all=200, total=0.21)
    found = deciding(before, after)
    assert found == {"num": 100, "mean": pytest.approx(0.002), "p50": 0.001, "p99": 0.005}


def test_a_p99_beyond_the_last_bucket_is_not_told():
    after = HISTOGRAM.format(fast=1, most=2, all=10, total=1)
    assert deciding("", after)["p99"] is None


def test_no_decision_is_no_figure():
    assert deciding("", "") is None
    same = HISTOGRAM.format(fast=1, most=1, all=1, total=1)
    assert deciding(same, same) is None
