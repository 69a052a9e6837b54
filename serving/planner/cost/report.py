"""The comparison as plain data: what `tokenport plan cost --json` prints, and what its table is made of."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from serving.errors import PlanError
from serving.planner.cost.autoscaling import fixed
from serving.planner.cost.break_even import Units, break_even
from serving.planner.cost.case import Api, Case, cheapest, evaluated
from serving.planner.cost.options import COMMITMENTS, Option, Provisioned
from serving.planner.cost.sizing import Evaluated

Report = dict[str, Any]


@dataclass
class Notes:
    """Lines of the report, gathered while the options are read: what nobody told, what is missing for an option, where figures are from."""

    assumed: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def make_report(case: Case, notes: Notes, *, vary: float) -> Report:
    """`vary`: by what share price and load are made smaller and larger, to see what changes."""
    found = evaluated(case)
    best = cheapest(found)
    return {
        "load": _load(case),
        "slo": asdict(case.slo),
        "options": [_option(one, is_cheapest=one is best) for one in found],
        "cheapest": best.option.name if best else None,
        "break_even": _break_evens(case, vary),
        "at_other_loads": [_other_load(case, factor) for factor in (1 - vary, 1 + vary)],
        "not_compared": notes.not_compared,
        "sources": [*_sources(case, found), *notes.sources],
        "assumed": [*notes.assumed, *_commitments(found)],
    }


def _load(case: Case) -> dict[str, Any]:
    load = case.load
    return {
        "source": load.source,
        "hours": len(load.hours),
        "seed": case.seed,
        "requests_per_day": load.requests_per_day,
        "input_tokens_per_request": load.input_tokens / load.num_requests,
        "output_tokens_per_request": load.output_tokens / load.num_requests,
    }


def _option(one: Evaluated, *, is_cheapest: bool) -> dict[str, Any]:
    run, million_tokens = one.run, one.run.million_tokens_per_month
    option = one.option
    return {
        "name": option.name,
        "is_cheapest": is_cheapest,
        "usd_per_month": run.usd_per_month,
        "usd_per_million_tokens": run.usd_per_month / million_tokens if million_tokens else None,
        "commitment_months": _commitment_months(option),
        "usd_committed": _commitment_months(option) * run.usd_per_month,
        **one.measures.to_json(),
        "utilisation": run.utilisation,
        "num_instances": run.num_instances,
        "charges": [{**asdict(charge), "usd": charge.usd} for charge in run.charges],
    }


def _commitments(found: list[Evaluated]) -> Iterator[str]:
    """A month's price is right for those alone who need it for the whole term."""
    for one in found:
        if months := _commitment_months(one.option):
            usd = months * one.run.usd_per_month
            yield f"{one.option.name}: the load lasts as long as the commitment; ${usd:,.2f} are to be paid even if it does not"


def _commitment_months(option: Option) -> int:
    return COMMITMENTS[option.price.commitment][0] if isinstance(option, Provisioned) else 0


def _break_evens(case: Case, vary: float) -> list[dict[str, Any]]:
    """Of everything that is paid by the hour, against the API."""
    if case.api is None:
        return []
    price = case.api.on_demand.price
    entries = []
    for units in _paid_by_the_hour(case, case.api):
        found, *others = (
            break_even(replace(units, usd_per_hour=units.usd_per_hour * factor), price, case.load, case.draw, case.slo)
            for factor in (1, 1 - vary, 1 + vary)
        )
        at_other_prices = [{"price_factor": factor, **asdict(one)} for factor, one in zip((1 - vary, 1 + vary), others, strict=True)]
        entries.append({"option": units.name, "against": case.api.on_demand.name, **asdict(found), "at_other_prices": at_other_prices})
    return entries


def _paid_by_the_hour(case: Case, api: Api) -> Iterator[Units]:
    for price in api.provisioned:
        name = f"provisioned, {COMMITMENTS[price.commitment][1]}"
        yield Units(name, partial(api.units, price), price.usd_per_hour, case.most_units)
    if case.own is not None:
        own = case.own
        yield Units("endpoint", lambda number: own.endpoint(fixed(number)), own.usd_per_hour, case.most_units)


def _other_load(case: Case, factor: float) -> dict[str, Any]:
    """`cheapest` None, and then `why_not`: none holds, or so many requests are not simulated."""
    try:
        best, why_not = cheapest(evaluated(case.scaled(factor))), "none is known to hold the SLO"
    except PlanError as error:
        best, why_not = None, str(error)
    return {
        "load_factor": factor,
        "cheapest": best.option.name if best else None,
        "usd_per_month": best.run.usd_per_month if best else None,
        "why_not": None if best else why_not,
    }


def _sources(case: Case, found: list[Evaluated]) -> list[str]:
    """Each once, in the order of the table."""
    lines = [f"{charge.what}: ${charge.usd_per_unit:g}/{charge.unit}: {charge.source}" for one in found for charge in one.run.charges]
    if case.own is not None:
        capacity = case.own.capacity
        lines.append(f"speed of an instance: {capacity.concurrency} at once, {capacity.speed}: {capacity.source}")
    return list(dict.fromkeys(lines))
