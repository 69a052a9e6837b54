"""Prices from recorded answers of the Price List API, through boto3."""

import json

import boto3
import pytest
from botocore.stub import Stubber

from serving.aws import prices_command
from serving.aws.deployment.account import Account
from serving.aws.price_list import hosting_prices
from serving.errors import DeployError
from serving.planner.prices import read_prices


def product(name, usd, *, unit="Hrs", usage=None):
    """An item of GetProducts, in the shape of the AWS Billing user guide ("Reading the service price list files")."""
    sku = "7FBZSHMQUYPYKQ3B"
    dimension = {
        "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7",
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${usd} per Hosting {name} hour in US East (N. Virginia)",
        "appliesTo": [],
        "pricePerUnit": {"USD": usd},
    }
    term = {"sku": sku, "offerTermCode": "JRTCKXETXF", "effectiveDate": "2026-11-01T00:00:00Z", "termAttributes": {}}
    return {
        "product": {
            "sku": sku,
            "productFamily": "ML Instance",
            "attributes": {
                "instanceName": name,
                "component": "Hosting",
                "regionCode": "us-east-1",
                "location": "US East (N. Virginia)",
                "usagetype": usage or f"USE1-Host:{name}",
                "operation": "RunInstance",
                "servicename": "Amazon SageMaker",
            },
        },
        "serviceCode": "AmazonSageMaker",
        "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": {**term, "priceDimensions": {dimension["rateCode"]: dimension}}}},
        "version": "20261120000000",
        "publicationDate": "2026-11-20T00:00:00Z",
    }


class Session:
    """boto3's session with one client, whose answers are given beforehand."""

    def __init__(self, pages):
        self.price_list = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        stubber = Stubber(self.price_list)
        tokens = [None, *(f"page-{number}" for number in range(1, len(pages)))]
        for token, next_token, items in zip(tokens, [*tokens[1:], None], pages, strict=True):
            filters = [("regionCode", "us-east-1"), ("component", "Hosting")]
            expected = {
                "ServiceCode": "AmazonSageMaker",
                "FormatVersion": "aws_v1",
                "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters],
                **({"NextToken": token} if token else {}),
            }
            answer = {"FormatVersion": "aws_v1", "PriceList": [json.dumps(item) for item in items]}
            stubber.add_response("get_products", {**answer, **({"NextToken": next_token} if next_token else {})}, expected)
        stubber.activate()

    def client(self, service, config):
        assert service == "pricing"
        return self.price_list


def prices(*pages):
    return hosting_prices(Account(Session(pages)), "us-east-1", "2026-11-25")


def test_all_pages_are_read_and_sorted_by_name():
    found = prices([product("ml.g6.xlarge", "1.1267000000")], [product("ml.g5.xlarge", "1.4080000000")])
    assert [(price.instance, price.usd_per_hour) for price in found] == [("ml.g5.xlarge", 1.408), ("ml.g6.xlarge", 1.1267)]


def test_each_says_when_and_where_it_was_read():
    (price,) = prices([product("ml.g6.xlarge", "1.1267000000")])
    assert (price.region, price.as_of) == ("us-east-1", "2026-11-25")
    assert "USE1-Host:ml.g6.xlarge" in price.source


def test_what_is_no_instances_hour_is_left_out():
    others = [product("ml.g5.xlarge", "0.0000000000", usage="Free-Host:ml.g5.xlarge"), product("", "0.016", unit="GB")]
    others += [product("ml.g6.xlarge", "2.2", usage="USE1-AsyncInf:ml.g6.xlarge")]
    for items in ([*others, product("ml.g6.xlarge", "1.1")], [product("ml.g6.xlarge", "1.1"), *others]):
        assert [(price.instance, price.usd_per_hour) for price in prices(items)] == [("ml.g6.xlarge", 1.1)]


@pytest.mark.parametrize("item", ["a text", {"product": {}}, product("ml.g6.xlarge", "free")])
def test_a_list_of_another_form_is_told_in_one_line(item):
    with pytest.raises(DeployError, match="GetProducts: an item of the price list has a form that is not known here") as caught:
        prices([item])
    assert "\n" not in str(caught.value)


def test_a_region_without_prices_is_named():
    with pytest.raises(DeployError, match="--region us-east-1: the AWS Price List has no prices"):
        prices([])


def test_the_command_writes_a_file_that_the_planner_reads(tmp_path, monkeypatch, capsys):
    account = Account(Session([[product("ml.g6.xlarge", "1.1267000000")]]))
    monkeypatch.setattr(prices_command, "open_account", lambda region: account)
    out = tmp_path / "prices.json"
    assert prices_command.run_prices(["--region", "us-east-1", "--out", str(out)], {}) == 0
    assert read_prices(out)["ml.g6.xlarge"].usd_per_hour == 1.1267
    assert f"--prices {out}" in capsys.readouterr().out


def test_without_a_file_the_table_is_printed(monkeypatch, capsys):
    account = Account(Session([[product("ml.g6.xlarge", "1.1267000000")]]))
    monkeypatch.setattr(prices_command, "open_account", lambda region: account)
    assert prices_command.run_prices(["--region", "us-east-1"], {}) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["instance"] == "ml.g6.xlarge"


def test_a_wrong_command_line_exits_with_2_and_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        prices_command.run_prices(["--regoin", "us-east-1"], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
