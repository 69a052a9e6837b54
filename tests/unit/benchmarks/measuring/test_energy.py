"""Joules from a counter, from power readings, and when they may not be believed."""

import pytest

from benchmarks.measuring.energy import energy
from benchmarks.measuring.window import Window

WINDOW = Window(1.0, 9.0, "given", is_steady=True)


def rows(times, power=None, counter=None, index=0):
    return [
        {"at_s": at_s, "gpus": [{"index": index, "power_w": power and power(at_s), "energy_j": counter and counter(at_s)}]}
        for at_s in times
    ]


def test_the_counter_goes_before_the_readings():
    found = energy(rows(range(11), power=lambda _: 1.0, counter=lambda at_s: 5000 + 300 * at_s), WINDOW, 1200)
    assert found["energy_j"] == pytest.approx(300 * 8)
    assert found["joules_per_output_token"] == pytest.approx(2.0)
    assert found["mean_power_w"] == pytest.approx(300)
    assert found["gpus"][0]["how"] == "counter"


def test_the_area_under_a_ramp():
    found = energy(rows([0, 2, 4, 6, 8, 10], power=lambda at_s: 10 * at_s), WINDOW, 400)
    assert found["energy_j"] == pytest.approx(10 * (81 - 1) / 2)
    assert found["gpus"][0]["how"] == "trapezoids"
    assert found["gpus"][0]["largest_gap_s"] == 2
    assert found["valid"]


def test_a_gap_is_stated_and_makes_it_invalid():
    found = energy(rows([0, 2, 6, 8, 10], power=lambda _: 10.0), WINDOW, 400)
    assert not found["valid"]
    assert found["gpus"][0]["largest_gap_s"] == 4
    assert "4.0 s" in found["invalid_reasons"][0]
    assert found["joules_per_output_token"] is None


def test_readings_that_begin_late_or_end_early_are_not_the_windows():
    assert not energy(rows([2, 4, 6, 8, 10], power=lambda _: 10.0), WINDOW, 400)["valid"]
    assert not energy(rows([0, 2, 4, 6, 8], power=lambda _: 10.0), WINDOW, 400)["valid"]
    assert not energy(rows([5], power=lambda _: 10.0), WINDOW, 400)["valid"]


def test_a_counter_that_went_back_is_no_energy():
    found = energy(rows(range(11), counter=lambda at_s: 100 - at_s), WINDOW, 400)
    assert found["energy_j"] is None
    assert not found["valid"]


def test_cards_add_up():
    both = [
        {"at_s": at_s, "gpus": [{"index": index, "power_w": 10.0 * (1 + index), "energy_j": None} for index in (0, 1)]}
        for at_s in range(11)
    ]
    assert energy(both, WINDOW, 240)["joules_per_output_token"] == pytest.approx(30 * 8 / 240)


def test_no_gpu_is_no_energy():
    assert energy([{"at_s": 0.0, "running": 1.0}], WINDOW, 400) is None
