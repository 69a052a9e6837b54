"""The file of prices."""

import json

import pytest

from serving.errors import PlanError
from serving.planner.prices import read_prices

ENTRY = {"instance": "ml.g6.xlarge", "usd_per_hour": 1.1, "region": None, "as_of": "2026-10-05", "source": "a bill"}


def write(tmp_path, document):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(document))
    return path


def test_a_file_of_ones_own_is_read_like_the_table(tmp_path):
    prices = read_prices(write(tmp_path, {"entries": [ENTRY]}))
    assert prices["ml.g6.xlarge"].usd_per_hour == 1.1
    assert read_prices()["ml.g6.xlarge"].source


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"usd_per_hour": 0}, r"entries\[0\]\.usd_per_hour 0: must be dollars above 0"),
        ({"usd_per_hour": True}, r"usd_per_hour True"),
        ({"usd_per_hour": float("inf")}, r"usd_per_hour inf: must be dollars above 0"),
        ({"as_of": None}, r"entries\[0\]\.as_of None: must be text"),
        ({"region": 3}, r"entries\[0\]\.region 3"),
        ({"currency": "EUR"}, r"entries\[0\] must have the fields instance, usd_per_hour, region, as_of, source and no others"),
    ],
)
def test_a_wrong_entry_is_told_with_its_field(tmp_path, change, words):
    with pytest.raises(PlanError, match=words):
        read_prices(write(tmp_path, {"entries": [{**ENTRY, **change}]}))


def test_an_instance_with_two_prices_is_told(tmp_path):
    there = ENTRY | {"region": "eu-west-1", "usd_per_hour": 1.4}
    with pytest.raises(PlanError, match=r"entries\[0\]\.instance ml\.g6\.xlarge: is there twice; a table is of one region"):
        read_prices(write(tmp_path, {"entries": [ENTRY, there]}))


def test_a_file_that_is_no_table_says_what_writes_one(tmp_path):
    with pytest.raises(PlanError, match="tokenport plan prices --region R --out FILE"):
        read_prices(write(tmp_path, {"prices": []}))
    with pytest.raises(PlanError, match="cannot be read"):
        read_prices(tmp_path / "absent.json")
