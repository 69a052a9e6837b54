"""The dated prices: those that come along, and a file of one's own."""

import json
import re

import pytest

from serving.errors import PlanError
from serving.planner.cost.prices import PRICES, read_prices

OWN = {
    "model": "meta.llama3-1-8b-instruct-v1:0",
    "input_usd_per_million": 0.1,
    "output_usd_per_million": 0.2,
    "region": "eu-west-1",
    "as_of": "2026-11-01",
    "source": "our bill",
}
UNIT = {
    "model": "own",
    "commitment": "6-months",
    "usd_per_hour": 20,
    "input_tokens_per_minute": 60000,
    "output_tokens_per_minute": None,
    "region": None,
    "as_of": "2026-11-01",
    "source": "our contract",
}


@pytest.fixture
def written(tmp_path):
    def write(**document):
        path = tmp_path / "prices.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_every_price_says_when_and_where_it_was_read():
    prices = read_prices()
    entries = [*prices.on_demand.values(), *prices.provisioned.values(), *prices.lambda_.values()]
    assert len(entries) >= 10
    assert all(re.fullmatch(r"20\d\d(-\d\d){0,2}", entry.as_of) and len(entry.source) > 20 for entry in entries)


def test_what_a_model_unit_carries_is_not_made_up():
    assert all(entry["input_tokens_per_minute"] is None for entry in json.loads(PRICES.read_text())["provisioned"])


def test_an_own_file_takes_the_place_of_entries_of_the_same_name_and_leaves_the_others(written):
    prices = read_prices(written(on_demand=[OWN], provisioned=[UNIT]))
    assert prices.on_demand[OWN["model"]].source == "our bill"
    assert prices.provisioned["own", "6-months"].usd_per_hour == 20
    assert "amazon.nova-lite-v1:0" in prices.on_demand


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"ondemand": []}, "field 'ondemand' is unknown; the nearest is 'on_demand'"),
        ({"on_demand": {}}, "on_demand must be a list"),
        ({"on_demand": [1]}, "on_demand[0] must be an object with model"),
        ({"on_demand": [{**OWN, "price": 1}]}, "on_demand[0] field 'price' is unknown"),
        ({"on_demand": [{**OWN, "input_usd_per_million": "1"}]}, "on_demand[0].input_usd_per_million '1': must be a number above 0"),
        ({"on_demand": [{**OWN, "input_usd_per_million": 1e999}]}, "on_demand[0].input_usd_per_million inf: must be a number above 0"),
        ({"on_demand": [OWN, {**OWN, "region": "us-east-1"}]}, "on_demand[1]: meta.llama3-1-8b-instruct-v1:0 is there twice"),
        ({"provisioned": [UNIT, UNIT]}, "provisioned[1]: own, 6-months is there twice"),
        ({"on_demand": [{**OWN, "as_of": ""}]}, "on_demand[0].as_of '': must be text"),
        ({"on_demand": [{name: value for name, value in OWN.items() if name != "source"}]}, "on_demand[0] has no field source"),
        ({"provisioned": [{**UNIT, "commitment": "1 year"}]}, "provisioned[0].commitment '1 year': must be one of none, 1-month"),
        ({"provisioned": [{**UNIT, "input_tokens_per_minute": -1}]}, "input_tokens_per_minute -1"),
    ],
)
def test_a_malformed_entry_is_told_by_its_field(written, document, told):
    with pytest.raises(PlanError) as caught:
        read_prices(written(**document))
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PlanError, match="cannot be read as JSON"):
        read_prices(tmp_path / "none.json")
