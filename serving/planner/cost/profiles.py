"""Loads by name: how the requests of a week lie in its hours. Shapes to plan with, not measurements of anybody's traffic."""

from collections.abc import Callable, Mapping

from serving.planner.cost.load import Hour, Load
from serving.planner.cost.quantities import unknown

_DAYS, _HOURS = 7, 24


def _business_hours(day: int, hour: int) -> float:
    return 1.0 if day < 5 and 9 <= hour < 17 else 0.05


def _bursty(_day: int, hour: int) -> float:
    return 20.0 if hour == 12 else 1.0


def _sporadic(day: int, hour: int) -> float:
    return 1.0 if day in (0, 2, 4) and hour in (10, 20) else 0.0


# The weight of an hour among those of the week, by the day from Monday = 0 and the hour from 0.
_SHAPES: Mapping[str, Callable[[int, int], float]] = {
    "flat": lambda _day, _hour: 1.0,
    "business-hours": _business_hours,
    "bursty": _bursty,
    "sporadic": _sporadic,
}
PROFILES: Mapping[str, str] = {
    "flat": "the same every hour",
    "business-hours": "9 to 17 o'clock Monday to Friday; every other hour has a twentieth of those",
    "bursty": "the same every hour but the one from noon, which has 20 times as many",
    "sporadic": "six hours of the week have them all",
}


def profile(name: str, requests_per_day: float, input_tokens: float, output_tokens: float) -> Load:
    """A week of `requests_per_day` on average, each of so many tokens.

    Raises:
        PlanError: there is no such profile.
    """
    if name not in _SHAPES:
        raise unknown("--profile", name, list(_SHAPES))
    weights = [_SHAPES[name](day, hour) for day in range(_DAYS) for hour in range(_HOURS)]
    unit = requests_per_day * _DAYS / sum(weights)
    hours = tuple(Hour(weight * unit, input_tokens, output_tokens) for weight in weights)
    return Load(hours, f"profile {name}, {requests_per_day:g} requests a day of {input_tokens:g} + {output_tokens:g} tokens")
