"""The table of prices for an hour of an instance: `prices.json`, or a file of the same form, such as `tokenport plan prices` writes.

Every entry says when and where it was read. An instance that has no entry has no price: none is guessed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from serving.errors import PlanError

PRICES = Path(__file__).with_name("prices.json")


@dataclass(frozen=True, slots=True)
class InstancePrice:
    """Dollars for one hour of `instance`, on demand; `region` None where the source names none."""

    instance: str
    usd_per_hour: float
    region: str | None
    as_of: str
    source: str


def read_prices(table: Path = PRICES) -> Mapping[str, InstancePrice]:
    """By the instance's name.

    Raises:
        PlanError: the file is not there, is no price table, or an entry of it is wrong; names the entry and the field.
    """
    try:
        document = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"--prices {table}: cannot be read ({error}); `tokenport plan prices --region R --out FILE` writes one") from error
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise PlanError(f"--prices {table}: has no list `entries`; `tokenport plan prices --region R --out FILE` writes one")
    prices = [_read_entry(entry, f"--prices {table}: entries[{index}]") for index, entry in enumerate(entries)]
    by_instance = {price.instance: price for price in prices}
    for index, price in enumerate(prices):
        if by_instance[price.instance] is not price:
            raise PlanError(f"--prices {table}: entries[{index}].instance {price.instance}: is there twice; a table is of one region")
    return by_instance


def _read_entry(entry: Any, where: str) -> InstancePrice:
    names = [field.name for field in fields(InstancePrice)]
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise PlanError(f"{where} must have the fields {', '.join(names)} and no others")
    usd = entry["usd_per_hour"]
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 < usd < math.inf:
        raise PlanError(f"{where}.usd_per_hour {usd!r}: must be dollars above 0")
    for name in ("instance", "as_of", "source"):
        if not isinstance(entry[name], str) or not entry[name]:
            raise PlanError(f"{where}.{name} {entry[name]!r}: must be text")
    if entry["region"] is not None and not isinstance(entry["region"], str):
        raise PlanError(f"{where}.region {entry['region']!r}: must be a region's name or null")
    return InstancePrice(**entry)
