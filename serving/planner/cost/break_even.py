"""From how much load on units paid by the hour are cheaper than an API paid by the token.

Both cost the same where the load's tokens cost what the units do: with one unit at some load, with two at twice that. The break-even is the
first of these at which that many units hold the SLO in the load's busiest hours, found by scaling the load and simulating these. Where
none does, a unit cannot carry what it costs, and the API stays cheaper.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serving.planner.cost.load import Load
from serving.planner.cost.options import Option, million_tokens_per_month
from serving.planner.cost.outcome import Slo
from serving.planner.cost.prices import OnDemandPrice
from serving.planner.cost.requests import MAX_REQUESTS, Requests
from serving.planner.cost.sizing import Evaluated, evaluate, smallest

Draw = Callable[[Load], Requests]


@dataclass(frozen=True)
class Units:
    """An option by its number of units, each paid every hour."""

    name: str
    sized: Callable[[int], Option]
    usd_per_hour: float
    most: int


@dataclass(frozen=True)
class BreakEven:
    """`num_units` cost what the API does at `requests_per_day`, and hold the SLO there: None where no number does, or where more or fewer
    requests would have to be simulated than are. `utilisation` of the last number tried, in that of the busiest hours in which the fewest
    are in time."""

    requests_per_day: float | None
    num_units: int
    utilisation: float | None
    why_not: str | None = None


def break_even(units: Units, price: OnDemandPrice, load: Load, draw: Draw, slo: Slo) -> BreakEven:
    """The API is taken to answer every request; `load` gives the shape and the lengths."""
    api_usd_per_hour = on_demand_usd(price, load) / len(load.hours)
    factor = units.usd_per_hour / api_usd_per_hour
    hours = load.busiest_hours()
    requests_per_unit = [factor * hour.num_requests for hour in hours]
    # 0.99: the number that is drawn is rounded.
    most = min(units.most, int(0.99 * MAX_REQUESTS / max(requests_per_unit)))
    if most < 1 or min(requests_per_unit) < 1:
        why = "more than are simulated" if most < 1 else "less than one in the busiest hour, too few to simulate"
        return BreakEven(None, 1, None, f"one would cost the same at {factor * load.requests_per_day:,.0f} requests a day, {why}")

    def attempt(num_units: int) -> Evaluated:
        found = (evaluate(units.sized(num_units), draw(hour.scaled(factor * num_units)), slo) for hour in hours)
        return min(found, key=lambda one: one.measures.share_in_time)

    if (asked := max(_asked(units.sized(1), draw(hour.scaled(factor))) for hour in hours)) >= 1:
        # As much is asked of each however many there are.
        return BreakEven(None, 1, asked, f"each would have to carry {asked * 100:.0f} % of what it can, in the busiest hour")
    num_units, found = smallest(attempt, most)
    per_day = factor * num_units * load.requests_per_day
    if found.holds:
        return BreakEven(per_day, num_units, found.run.utilisation)
    if found.measures.holds_slo is None:
        why = "the API's speed is not known"
    elif found.measures.is_too_slow:
        why = "answers take longer than the SLO allows even where nobody waits"
    else:
        why = f"{num_units} cost the same at {per_day:,.0f} requests a day, and do not hold the SLO there"
    return BreakEven(None, num_units, found.run.utilisation, why)


def _asked(option: Option, requests: Requests) -> float:
    """What is asked of it by what it can carry; 0 where that does not show, since it answered nothing."""
    run = option.run(requests)
    answered = run.million_tokens_per_month
    return (run.utilisation or 0.0) * million_tokens_per_month(requests) / answered if answered else 0.0


def on_demand_usd(price: OnDemandPrice, load: Load) -> float:
    """For the load's own hours, every request answered."""
    return (load.input_tokens * price.input_usd_per_million + load.output_tokens * price.output_usd_per_million) / 1e6
