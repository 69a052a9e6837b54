"""The dated prices of `prices.json`, and of a file of the same form that the user has; every entry says when and where it was read.

What has no entry has no price: none is guessed. Entries of the user's file take the place of those of the same name.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from serving.errors import PlanError
from serving.planner.cost.quantities import unknown

PRICES = Path(__file__).with_name("prices.json")

_Entry = TypeVar("_Entry", bound="OnDemandPrice | ProvisionedPrice | LambdaPrice")
_Name = TypeVar("_Name", bound="str | tuple[str, str]")
Commitment = Literal["none", "1-month", "6-months"]
Architecture = Literal["x86_64", "arm64"]


@dataclass(frozen=True)
class OnDemandPrice:
    """Dollars a million tokens of an API that is paid by what it answers."""

    model: str
    input_usd_per_million: float
    output_usd_per_million: float
    region: str | None
    as_of: str
    source: str


@dataclass(frozen=True)
class ProvisionedPrice:
    """Dollars an hour for one model unit, which carries so many tokens a minute: None where nobody has said."""

    model: str
    commitment: Commitment
    usd_per_hour: float
    input_tokens_per_minute: float | None
    output_tokens_per_minute: float | None
    region: str | None
    as_of: str
    source: str


@dataclass(frozen=True)
class LambdaPrice:
    """Dollars for a function's memory by time, and for being called."""

    architecture: Architecture
    usd_per_gb_second: float
    usd_per_million_requests: float
    region: str | None
    as_of: str
    source: str


@dataclass(frozen=True)
class Prices:
    """Entries by what they are for."""

    on_demand: Mapping[str, OnDemandPrice]
    provisioned: Mapping[tuple[str, Commitment], ProvisionedPrice]
    lambda_: Mapping[Architecture, LambdaPrice]


def read_prices(own: Path | None = None) -> Prices:
    """Those that come with Tokenport, with those of `own` in front of them.

    Raises:
        PlanError: the file is not there or is no price file, or an entry is wrong; names the entry and the field.
    """
    on_demand: dict[str, OnDemandPrice] = {}
    provisioned: dict[tuple[str, Commitment], ProvisionedPrice] = {}
    lambda_: dict[Architecture, LambdaPrice] = {}
    for file in (PRICES, own) if own else (PRICES,):
        where, document = f"--prices {file}", _read(file)
        on_demand |= _entries(where, document, "on_demand", OnDemandPrice, lambda entry: entry.model)
        provisioned |= _entries(where, document, "provisioned", ProvisionedPrice, lambda entry: (entry.model, entry.commitment))
        lambda_ |= _entries(where, document, "lambda", LambdaPrice, lambda entry: entry.architecture)
    return Prices(on_demand, provisioned, lambda_)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"--prices {file}: cannot be read as JSON: {error}") from error
    known = ("note", "on_demand", "provisioned", "lambda")
    if not isinstance(document, dict):
        raise PlanError(f"--prices {file}: write an object with lists {', '.join(known[1:])}")
    for name in document:
        if name not in known:
            raise unknown(f"--prices {file}: field", name, known)
    return document


def _entries(
    where: str, document: Mapping[str, Any], kind: str, form: type[_Entry], name_of: Callable[[_Entry], _Name]
) -> dict[_Name, _Entry]:
    """A file's entries of one kind, each name once: of two regions' prices none would be the right one."""
    entries = document.get(kind, [])
    if not isinstance(entries, list):
        raise PlanError(f"{where}: {kind} must be a list")
    found: dict[_Name, _Entry] = {}
    for index, written in enumerate(entries):
        entry = _entry(written, f"{where}: {kind}[{index}]", form)
        name = name_of(entry)
        if name in found:
            told = name if isinstance(name, str) else ", ".join(name)
            raise PlanError(f"{where}: {kind}[{index}]: {told} is there twice; give the one that counts")
        found[name] = entry
    return found


def _entry(entry: Any, where: str, form: type[_Entry]) -> _Entry:
    names = [field.name for field in fields(form)]
    if not isinstance(entry, dict):
        raise PlanError(f"{where} must be an object with {', '.join(names)}")
    for name in entry:
        if name not in names:
            raise unknown(f"{where} field", name, names)
    for name in names:
        if name not in entry:
            raise PlanError(f"{where} has no field {name}; an entry has {', '.join(names)}")
        if problem := _problem(name, entry[name]):
            raise PlanError(f"{where}.{name} {entry[name]!r}: {problem}")
    return form(**entry)


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with a field's value, if anything is."""
    if name in _CHOICES:
        return None if value in _CHOICES[name] else f"must be one of {', '.join(_CHOICES[name])}"
    if value is None and (name == "region" or name.endswith("_per_minute")):
        return None
    if name.startswith(("usd_", "input_", "output_")):
        is_amount = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
        return None if is_amount else "must be a number above 0"
    return None if isinstance(value, str) and value else "must be text"


_CHOICES: Mapping[str, tuple[str, ...]] = {"commitment": get_args(Commitment), "architecture": get_args(Architecture)}
