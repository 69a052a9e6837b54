"""Dollars per million tokens, and where the price is from."""

import json

import pytest

from benchmarks.measuring.cost import PRICES, Price, cost, price_of
from serving.errors import BenchmarkError


def test_a_dollar_an_hour_at_a_thousand_tokens_a_second_is_28_cents_a_million():
    found = cost(Price(1.0), 1000.0)
    assert found["usd_per_million_output_tokens"] == pytest.approx(1 / 3.6)
    assert found["usd_per_million_tokens_blended"] is None


def test_input_tokens_share_the_price_when_told():
    found = cost(Price(3.6), 1000.0, 3000.0, rate_kind="goodput")
    assert found["usd_per_million_output_tokens"] == pytest.approx(1.0)
    assert found["usd_per_million_tokens_blended"] == pytest.approx(0.25)
    assert found["input_tokens_per_output_token"] == pytest.approx(3.0)
    assert found["rate_kind"] == "goodput"


def test_several_instances_cost_as_many_times():
    assert cost(Price(3.6), 1000.0, num_instances=2)["usd_per_million_output_tokens"] == pytest.approx(2.0)


@pytest.mark.parametrize("rate", [None, 0.0])
def test_no_tokens_have_no_price(rate):
    assert cost(Price(1.0), rate)["usd_per_million_output_tokens"] is None


def test_the_table_gives_price_date_and_source():
    price = price_of("ml.g5.xlarge", None)
    assert (price.usd_per_hour, price.as_of) == (1.4084, "2025-01-26")
    assert price.source
    assert cost(price, 1.0)["as_of"] == "2025-01-26"


def test_the_callers_price_needs_no_table(tmp_path):
    assert price_of(None, 2.5, tmp_path / "absent") == Price(2.5)
    assert price_of(None, None) is None


def test_an_unknown_instance_names_the_nearest():
    with pytest.raises(BenchmarkError, match=r"--instance 'ml\.g5\.xlarg'.*nearest there is ml\.g5\.xlarge.*--price-per-hour"):
        price_of("ml.g5.xlarg", None)


@pytest.mark.parametrize("per_hour", [0.0, -1.0, float("nan")])
def test_a_price_is_above_zero(per_hour):
    with pytest.raises(BenchmarkError, match="--price-per-hour"):
        price_of(None, per_hour)


def test_two_prices_are_one_too_many():
    with pytest.raises(BenchmarkError, match="both"):
        price_of("ml.g5.xlarge", 1.0)


def test_every_entry_is_dated_and_sourced():
    entries = json.loads(PRICES.read_text())["entries"]
    assert len({entry["instance"] for entry in entries}) == len(entries) > 0
    for entry in entries:
        assert set(entry) == {"instance", "usd_per_hour", "region", "as_of", "source"}
        assert entry["usd_per_hour"] > 0
        assert entry["as_of"][:2] == "20"
        assert entry["source"]
