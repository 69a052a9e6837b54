"""Repeats as one result."""

import pytest

from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.pooling import pool
from benchmarks.measuring.window import steady_window
from tests.unit.benchmarks.measuring.synthetic import closed_loop


def test_rates_are_averaged_with_an_interval_and_latencies_pooled():
    runs = [closed_loop(15, concurrency) for concurrency in (3, 4, 5)]
    windows = [steady_window(run, is_open=False) for run in runs]
    repeats = [metrics(run, window) for run, window in zip(runs, windows, strict=True)]
    pooled = pool(repeats, runs, windows)
    assert pooled["output_tokens_per_s"] == pytest.approx(4 * 11 / 0.3, rel=0.05)
    low, high = pooled["ci"]["output_tokens_per_s"]
    assert low < repeats[0]["output_tokens_per_s"] < repeats[2]["output_tokens_per_s"] < high
    assert pooled["ttft_s"]["num_samples"] == sum(repeat["ttft_s"]["num_samples"] for repeat in repeats)
    assert pooled["num_requests"] == sum(repeat["num_requests"] for repeat in repeats)
    # Too few in any one repeat, enough in all together.
    assert repeats[0]["ttft_s"]["p99"] is None
    assert pooled["ttft_s"]["p99"] == pytest.approx(0.1)


def test_one_repeat_is_its_own():
    run = closed_loop(10, 4)
    window = steady_window(run, is_open=False)
    repeat = metrics(run, window)
    assert pool([repeat], [run], [window])["ttft_s"] == repeat["ttft_s"]
