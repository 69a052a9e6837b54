"""The smallest number of units with which an option holds the SLO."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.planner.cost.options import Option, Run
from serving.planner.cost.outcome import Measures, Slo, measure
from serving.planner.cost.requests import Requests


@dataclass(frozen=True)
class Evaluated:
    """An option with what its simulation gave."""

    option: Option
    run: Run
    measures: Measures

    @property
    def holds(self) -> bool:
        """Whether it is known to hold the SLO."""
        return self.measures.holds_slo is True

    @property
    def may_hold(self) -> bool:
        """Whether it is not known to break it."""
        return self.measures.holds_slo is not False


def evaluate(option: Option, requests: Requests, slo: Slo) -> Evaluated:
    """Simulate it once."""
    run = option.run(requests)
    return Evaluated(option, run, measure(run.outcome, slo))


def smallest(attempt: Callable[[int], Evaluated], most: int) -> tuple[int, Evaluated]:
    """The fewest units of which the attempt may hold the SLO; where none does, as many as were tried until more would not help or `most`
    were reached. More are taken to be never worse."""
    too_few, num_units = 0, 1
    found = attempt(num_units)
    while not found.may_hold and not found.measures.is_too_slow and num_units < most:
        too_few, num_units = num_units, min(num_units * 2, most)
        found = attempt(num_units)
    while found.may_hold and num_units - too_few > 1:
        middle = (too_few + num_units) // 2
        tried = attempt(middle)
        if tried.may_hold:
            num_units, found = middle, tried
        else:
            too_few = middle
    return num_units, found
