"""Hourly loads: what a CSV means, what is wrong with it, and what is drawn from it."""

import numpy as np
import pytest

from serving.errors import PlanError
from serving.planner.cost.load import Hour, Load, read_load
from serving.planner.cost.profiles import PROFILES, profile
from serving.planner.cost.requests import HOUR_S, MAX_REQUESTS, draw

SUMS = "hour,requests,input_tokens,output_tokens\n"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "load.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_token_columns_are_the_sums_of_the_hour(written):
    assert read_load(written(SUMS + "0,10,5000,1000\n1,0,0,0\n")).hours == (Hour(10, 500, 100), Hour(0, 0, 0))


def test_token_columns_per_request_are_means(written):
    text = "timestamp,requests,input_tokens_per_request,output_tokens_per_request\n2026-01-05T09:00,10,500,100\n2026-01-05T10:00,2,50,10\n"
    assert read_load(written(text)).hours == (Hour(10, 500, 100), Hour(2, 50, 10))


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(written):
    assert read_load(written("\ufeffoutput_tokens,input_tokens,requests,hour\n7,3,1,0\n")).hours == (Hour(1, 3, 7),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("hour,requests,input_tokens,output_token\n", "line 1, column 'output_token' is unknown; the nearest is 'output_tokens'"),
        ("hour,requests,input_tokens\n", "line 1, column output_tokens: is missing"),
        ("requests,input_tokens,output_tokens\n", "has no time; write one column, hour or timestamp"),
        ("hour,timestamp,requests,input_tokens,output_tokens\n", "has hour and timestamp"),
        ("hour,requests,requests,input_tokens,output_tokens\n", "column requests: is there twice"),
        ("hour,requests,input_tokens,output_tokens,input_tokens_per_request\n", "sums of the hour, or"),
        (SUMS + "0,1,2\n", "line 2: has 3 cells, the header has 4"),
        (SUMS + "0,ten,1,1\n", "line 2, column requests: 'ten': write a number"),
        (SUMS + "0,-1,1,1\n", "line 2, column requests: '-1'"),
        (SUMS + "0,1.5,1,1\n", "line 2, column requests: '1.5': write a whole number"),
        (SUMS + "0,1,nan,1\n", "line 2, column input_tokens: 'nan'"),
        (SUMS + "0,1,1,0\n", "line 2, column output_tokens: '0': the hour has requests"),
        (SUMS + "0,0,5,0\n", "line 2, column input_tokens: '5': the hour has no requests"),
        (SUMS + "0,1,1,1\n2,1,1,1\n", "line 3, column hour: '2': expected 1"),
        (SUMS + "0,0,0,0\n", "column requests: no hour has any"),
        (SUMS.replace("hour", "timestamp") + "2026-01-05T09:30,1,1,1\n", "line 2, column timestamp: '2026-01-05T09:30': expected"),
        (SUMS.replace("hour", "timestamp") + "2026-01-05T09:00,1,1,1\n2026-01-05T11:00,1,1,1\n", "expected 2026-01-05T10:00:00"),
        (
            SUMS.replace("hour", "timestamp") + "9999-12-31T23:00,1,1,1\n" * 2,
            "line 3, column timestamp: '9999-12-31T23:00': write ISO 8601",
        ),
        (SUMS.replace("hour", "timestamp") + "noon,1,1,1\n", "line 2, column timestamp: 'noon': write ISO 8601"),
    ],
)
def test_a_malformed_file_is_told_by_line_column_and_value(written, text, told):
    with pytest.raises(PlanError, match="--load") as caught:
        read_load(written(text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PlanError, match="cannot be read as CSV"):
        read_load(tmp_path / "none.csv")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_a_week_of_what_was_asked_for(name):
    load = profile(name, 1000, 500, 100)
    assert len(load.hours) == 168
    assert load.requests_per_day == pytest.approx(1000)
    assert load.input_tokens == pytest.approx(7000 * 500)


def test_business_hours_are_busy_by_day_and_quiet_on_sunday():
    hours = profile("business-hours", 1000, 500, 100).hours
    assert hours[10].num_requests == pytest.approx(20 * hours[3].num_requests)
    assert hours[6 * 24 + 10].num_requests == pytest.approx(hours[3].num_requests)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(PlanError, match="--profile 'bursts' is unknown; the nearest is 'bursty'"):
        profile("bursts", 1, 1, 1)


def test_the_busiest_hours_have_the_most_requests_input_or_output():
    most_output, most_input, most_requests = Hour(5, 50, 100), Hour(10, 500, 10), Hour(99, 5, 1)
    load = Load((most_output, most_input, Hour(1, 1, 1), most_requests), "a test")
    assert {busy.hours for busy in load.busiest_hours()} == {(most_output,), (most_input,), (most_requests,)}
    assert len(profile("bursty", 1000, 500, 100).busiest_hours()) == 1


LOAD = Load((Hour(40, 500, 100), Hour(0, 0, 0), Hour(60, 50, 10)), "a test")


def test_drawn_requests_are_the_hours_own_in_number_time_and_tokens():
    requests = draw(LOAD, seed=3)
    hour_of = (requests.arrival_s // HOUR_S).astype(int)
    assert np.bincount(hour_of, minlength=3).tolist() == [40, 0, 60]
    assert (np.diff(requests.arrival_s) >= 0).all()
    assert np.bincount(hour_of, weights=requests.input_tokens) == pytest.approx([20_000, 0, 3000])
    assert np.bincount(hour_of, weights=requests.output_tokens) == pytest.approx([4000, 0, 600])


def test_equal_seeds_draw_equal_requests_and_others_do_not():
    first, again, other = (draw(LOAD, seed=seed) for seed in (1, 1, 2))
    assert (first.arrival_s == again.arrival_s).all()
    assert (first.output_tokens == again.output_tokens).all()
    assert (first.arrival_s != other.arrival_s).any()


def test_without_variation_all_requests_of_an_hour_are_equally_long():
    assert set(draw(LOAD, length_variation=0).output_tokens) == {100, 10}


def test_variation_is_the_deviation_by_the_mean():
    lengths = draw(Load((Hour(100_000, 500, 100),), "a test"), length_variation=0.5).input_tokens
    assert lengths.std() / lengths.mean() == pytest.approx(0.5, rel=0.02)


def test_hours_of_fractions_of_a_request_are_not_lost():
    assert len(draw(Load((Hour(0.4, 5, 5),) * 100, "a test"))) == 40


def test_more_requests_than_are_simulated_are_refused():
    for number in (MAX_REQUESTS + 1, 1e300):
        with pytest.raises(PlanError, match=f"more than the {MAX_REQUESTS}"):
            draw(Load((Hour(number, 5, 5),), "a test"))


def test_a_load_of_no_whole_request_is_refused():
    with pytest.raises(PlanError, match="a test: has no whole request"):
        draw(Load((Hour(0.02, 5, 5),) * 20, "a test"))
