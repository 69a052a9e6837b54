"""Percentiles with enough samples only, and intervals that cover what they should."""

import numpy as np
import pytest

from benchmarks.measuring.statistics import is_enough, mean_interval, percentile_interval, summarize, t_interval


@pytest.mark.parametrize(
    ("percentile", "num", "is_given"),
    [(50, 1, False), (50, 2, True), (90, 9, False), (90, 10, True), (99, 99, False), (99, 100, True)],
)
def test_a_percentile_needs_samples(percentile, num, is_given):
    assert is_enough(num, percentile) == is_given
    figures = summarize([float(value) for value in range(num)])
    assert (figures[f"p{percentile}"] is not None) == is_given
    assert (figures["ci"][f"p{percentile}"] is not None) == is_given


def test_figures_are_numpys():
    samples = np.random.default_rng(1).lognormal(size=1000)
    figures = summarize(list(samples))
    assert figures["mean"] == pytest.approx(samples.mean())
    assert figures["p99"] == pytest.approx(np.percentile(samples, 99))
    assert (figures["min"], figures["max"], figures["num_samples"]) == (samples.min(), samples.max(), 1000)


def test_no_samples_are_no_figures():
    assert summarize([]) == {
        **dict.fromkeys(("mean", "p50", "p90", "p99", "min", "max")),
        "num_samples": 0,
        "ci": dict.fromkeys(("mean", "p50", "p90", "p99")),
    }


def test_few_samples_do_not_bound_a_high_percentile():
    assert percentile_interval([float(value) for value in range(100)], 99)[1] is None
    assert percentile_interval([float(value) for value in range(1000)], 99)[1] is not None


@pytest.mark.parametrize(("percentile", "num"), [(50, 40), (90, 200), (99, 2000)])
def test_percentile_intervals_cover_the_truth(percentile, num):
    rng = np.random.default_rng(2)
    truth = -np.log(1 - percentile / 100)
    num_covered = 0
    for _ in range(400):
        low, high = percentile_interval(list(rng.exponential(size=num)), percentile)
        num_covered += low <= truth <= high
    # At least 95 %, less what 400 tries may miss by chance.
    assert num_covered >= 0.92 * 400


def test_the_means_interval_covers_the_truth_where_neighbours_are_alike():
    rng = np.random.default_rng(3)
    num_covered = 0
    for _ in range(300):
        noise = rng.normal(size=400)
        values = [noise[0]]
        for step in noise[1:]:
            values.append(0.7 * values[-1] + step)
        low, high = mean_interval(values)
        num_covered += low <= 0 <= high
    # An interval that took them for independent would cover less than two thirds.
    assert num_covered >= 0.85 * 300


def test_too_few_values_have_no_interval():
    assert mean_interval([1.0] * 24) is None
    assert t_interval([1.0]) is None
    assert t_interval([1.0, 3.0]) == pytest.approx([2 - 12.706, 2 + 12.706], abs=0.01)
