"""Arrival times: rates, burstiness, stages and ramps, held statistically with fixed seeds and bounds of five standard errors or more."""

import math

import numpy as np
import pytest

from benchmarks.load.arrivals import Process, Stage, arrivals_within, first_arrivals, parse_stages, steady, trace_times
from serving.errors import BenchmarkError

CONSTANT = Process("constant")
POISSON = Process("poisson")


def rng():
    return np.random.default_rng(7)


def variation(times_s):
    gaps_s = np.diff(times_s)
    return gaps_s.std() / gaps_s.mean()


def test_constant_arrivals_begin_at_zero_and_are_evenly_spaced():
    assert first_arrivals(CONSTANT, 4.0, 5, rng()).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_poisson_has_the_rate_and_gaps_as_varied_as_they_are_long():
    times_s = first_arrivals(POISSON, 8.0, 20_000, rng())
    assert np.diff(times_s).mean() == pytest.approx(1 / 8, rel=0.04)
    assert variation(times_s) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_gamma_distributions_shape(burstiness):
    times_s = first_arrivals(Process("gamma", burstiness), 2.0, 20_000, rng())
    assert np.diff(times_s).mean() == pytest.approx(0.5, rel=0.08)
    assert variation(times_s) == pytest.approx(1 / math.sqrt(burstiness), rel=0.1)


def test_gamma_with_burstiness_one_is_poisson():
    assert first_arrivals(Process("gamma", 1.0), 3.0, 100, rng()).tolist() == first_arrivals(POISSON, 3.0, 100, rng()).tolist()


def test_draws_are_not_rescaled_to_end_on_time():
    """Rescaled, the last of every seed would fall on N/rate: its spread would be zero and not sqrt(N)/rate."""
    last_s = [first_arrivals(POISSON, 10.0, 100, np.random.default_rng(seed))[-1] for seed in range(400)]
    assert np.std(last_s) == pytest.approx(1.0, rel=0.2)


def test_the_count_within_a_time_varies_as_poissons_does():
    counts = [len(arrivals_within(POISSON, steady(5.0, 20.0), np.random.default_rng(seed))[0]) for seed in range(400)]
    assert np.mean(counts) == pytest.approx(100, abs=2.5)
    assert np.var(counts) == pytest.approx(100, rel=0.35)


def test_times_are_sorted_and_within():
    times_s, _ = arrivals_within(Process("gamma", 0.1), parse_stages("3..20/s:10s,0/s:5s,20..0/s:10s"), rng())
    assert (np.diff(times_s) >= 0).all()
    assert times_s[0] >= 0
    assert times_s[-1] < 25


def test_constant_stages_hold_rate_times_duration_and_name_their_stage():
    times_s, stages = arrivals_within(CONSTANT, parse_stages("2/s:30s,4/s:1m"), rng())
    assert np.bincount(stages).tolist() == [60, 240]
    assert times_s[:3].tolist() == [0.0, 0.5, 1.0]
    assert times_s[60] == pytest.approx(30.0)
    assert np.diff(times_s[60:]) == pytest.approx(0.25)


def test_nothing_arrives_in_a_stage_of_rate_zero():
    times_s, stages = arrivals_within(CONSTANT, parse_stages("2/s:5s,0/s:10s,2/s:5s"), rng())
    assert np.bincount(stages).tolist() == [10, 0, 10]
    assert not ((times_s >= 5) & (times_s < 15)).any()
    assert times_s[10] == pytest.approx(15.0)


@pytest.mark.parametrize(("first_rate", "last_rate"), [(1.0, 8.0), (8.0, 1.0), (0.0, 9.0), (9.0, 0.0)])
def test_a_constant_ramp_follows_its_integral(first_rate, last_rate):
    duration_s = 60.0
    times_s, _ = arrivals_within(CONSTANT, [Stage(first_rate, last_rate, duration_s)], rng())
    assert len(times_s) == (first_rate + last_rate) / 2 * duration_s
    integral = first_rate * times_s + (last_rate - first_rate) / duration_s * times_s**2 / 2
    assert integral == pytest.approx(np.arange(len(times_s)), abs=1e-6)


def test_a_poisson_ramp_has_each_parts_share():
    times_s, _ = arrivals_within(POISSON, [Stage(0.0, 200.0, 100.0)], rng())
    assert len(times_s) == pytest.approx(10_000, abs=500)
    # A quarter of a triangle's area lies under the first half of its base.
    assert (times_s < 50).mean() == pytest.approx(0.25, abs=0.025)


def test_equal_seeds_make_equal_times():
    assert arrivals_within(POISSON, steady(5, 10), rng())[0].tolist() == arrivals_within(POISSON, steady(5, 10), rng())[0].tolist()


def test_a_traces_times_begin_at_zero_and_run_at_its_speed():
    assert trace_times([100.0, 101.0, 104.0], speed=2.0).tolist() == [0.0, 0.5, 2.0]


def test_stages_are_read():
    assert parse_stages("2/s:30s, 1.5..8/s:1m") == (Stage(2, 2, 30), Stage(1.5, 8, 60))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2/s", "--stages 2/s: '2/s' is no stage: must be RATE/s:DURATION stages with commas between"),
        ("2/s:30s,4:10s", "--stages 2/s:30s,4:10s: '4:10s' is no stage"),
        ("2/s:30s,", "'' is no stage"),
        ("-1/s:3s", "'-1/s:3s' is no stage"),
        ("2/s:soon", "--stages soon: must be a length of time above zero, such as 60s"),
        ("0/s:9s", "--stages 0/s:9s: no stage has a rate above zero"),
    ],
)
def test_malformed_stages_are_refused(text, told):
    with pytest.raises(BenchmarkError) as error:
        parse_stages(text)
    assert told in str(error.value)
