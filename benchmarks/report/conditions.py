"""`--fail-if "tok_s < -5%"`: a limit on the difference of a figure, and whether a comparison is beyond it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.comparison import Comparison, Difference
from benchmarks.report.figures import ALIASES
from serving.errors import BenchmarkError

_GRAMMAR = re.compile(r"\s*([\w.]+)\s*(<=|>=|<|>)\s*([+-]?\d+(?:\.\d+)?)\s*(%|ms|s)?\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds where the difference of `name` (side minus first side) is below or above `limit`: a share of the first side's value, or an
    amount in the figure's unit."""

    text: str
    name: str
    is_below: bool
    is_inclusive: bool
    limit: float
    is_relative: bool

    def holds(self, difference: Difference, *, strict: bool) -> bool:
        """Beyond the limit, and beyond noise in that direction; `strict` asks for the limit alone.

        Raises:
            BenchmarkError: a side has not the figure, or has 0 where a share of it is asked for: the condition cannot be judged.
        """
        if difference.a is None or difference.b is None:
            raise BenchmarkError(f"--fail-if {self.text!r} cannot be judged: {difference.reason} for {self.name}; send more requests")
        value = difference.b - difference.a
        if self.is_relative and difference.a == 0:
            if value != 0:
                raise BenchmarkError(
                    f"--fail-if {self.text!r} cannot be judged: {self.name} is 0 on the first side; give a limit without %"
                )
        elif self.is_relative:
            value /= difference.a
        is_beyond = value < self.limit if self.is_below else value > self.limit
        return (is_beyond or (self.is_inclusive and value == self.limit)) and (strict or self._is_beyond_noise(difference))

    def _is_beyond_noise(self, difference: Difference) -> bool:
        """A limit on the other side of no change, such as "must gain 5 %", has the noise around itself and not around no change."""
        spread = difference.spread
        if spread is None:
            return False
        low, high = (spread.relative_low, spread.relative_high) if self.is_relative else (spread.low, spread.high)
        if low is None or high is None:
            return False
        return high < max(0.0, self.limit) if self.is_below else low > min(0.0, self.limit)


def parse_condition(text: str, known: Collection[str]) -> Condition:
    """METRIC OP NUMBER[%|ms|s]; METRIC a short name or one of `known`, the figures that the files have.

    Raises:
        BenchmarkError: it is none, or names no figure.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise BenchmarkError(f'--fail-if {text!r}: write METRIC OP NUMBER[%|ms|s] with OP one of < <= > >=, like "tok_s < -5%"')
    given, operator, number, unit = match.groups()
    name = ALIASES.get(given, given)
    if name not in known:
        short = [alias for alias, full in ALIASES.items() if full in known]
        raise BenchmarkError(f"--fail-if {text!r}: {given} is no metric of these files; there are {', '.join(short or sorted(known))}")
    limit = float(number) * {"%": 0.01, "ms": 0.001}.get(unit or "", 1.0)
    return Condition(text, name, operator[0] == "<", operator.endswith("="), limit, unit == "%")


def failed(conditions: Sequence[Condition], comparisons: Sequence[Comparison], *, strict: bool) -> list[str]:
    """A line for each condition that holds, with the side and load where it does."""
    found = []
    for condition in conditions:
        for comparison in comparisons:
            for load, differences in comparison.loads.items():
                of_name: Mapping[str, Difference] = {difference.name: difference for difference in differences}
                if condition.name in of_name and condition.holds(of_name[condition.name], strict=strict):
                    where = f" at {load}" if load and len(comparison.loads) > 1 else ""
                    found.append(f"{condition.text}: holds for {comparison.b.name}{where}")
    return found
