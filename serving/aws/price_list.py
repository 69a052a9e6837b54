"""What SageMaker hosting costs an hour, from the AWS Price List: a row for each instance type of a region.

Source: GetProducts of the Price List Query API (service code AmazonSageMaker), whose items are JSON texts of products with their terms.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from serving.aws.deployment.account import Account
from serving.aws.deployment.description import Call
from serving.errors import DeployError
from serving.planner.prices import InstancePrice

SERVICE_REGION = "us-east-1"
"""The Price List answers in few regions, this one among them, for all (AWS Billing user guide, Price List endpoints)."""
_COMPONENT = "Hosting"
"""Real-time endpoints; the same instance type has other prices as a notebook and others as a training job."""
_USAGE = "Host"
"""Before the instance's name, after the region's short one: `USE1-Host:ml.g6.xlarge`."""
_HOUR = "Hrs"


def hosting_prices(account: Account, region: str, as_of: str) -> list[InstancePrice]:
    """On demand, in dollars, by the instance's name. `as_of`: today, ISO.

    Raises:
        DeployError: AWS does not answer, has no prices of this region, or its list has another form than the one known here.
    """
    wanted = {"regionCode": region, "component": _COMPONENT}
    call = Call(
        "pricing",
        "GetProducts",
        {
            "ServiceCode": "AmazonSageMaker",
            "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()],
            "FormatVersion": "aws_v1",
        },
    )
    items: Iterable[str] = account.listed(call, "PriceList")
    found = {price.instance: price for item in items if (price := _read(item, region, as_of)) is not None}
    if not found:
        raise DeployError(f"--region {region}: the AWS Price List has no prices of SageMaker hosting there; write it as us-east-1")
    return [found[name] for name in sorted(found)]


def _read(item: str, region: str, as_of: str) -> InstancePrice | None:
    try:
        return _price(json.loads(item), region, as_of)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeployError(f"GetProducts: an item of the price list has a form that is not known here ({error!r}): {item[:200]}") from error


def _price(item: Mapping[str, Any], region: str, as_of: str) -> InstancePrice | None:
    """None for what is no hour of an endpoint's instance: a free tier, requests, storage, another use of the same instance."""
    attributes = item["product"]["attributes"]
    name, usage = attributes.get("instanceName"), attributes.get("usagetype", "")
    if not name or not usage.endswith(f"{_USAGE}:{name}"):
        return None
    for term in item.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension["unit"] == _HOUR and usd > 0:
                return InstancePrice(name, usd, region, as_of, f"AWS Price List API, AmazonSageMaker, usage type {usage}; on demand")
    return None
