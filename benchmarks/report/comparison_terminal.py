"""A comparison on the terminal: warnings first, then a table a load, how the intervals were found, and what noise means here."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.report.comparison import Comparison, Difference
from benchmarks.report.terminal import open_console
from benchmarks.report.words import UNKNOWN, interval, percent, quantity

STYLES = {"better": "green", "worse": "red", "changed": "yellow"}


def show(comparisons: Sequence[Comparison], failed: Sequence[str], console: Console | None = None) -> None:
    """Print them."""
    console = console or open_console()
    for comparison in comparisons:
        console.print(_one(comparison))
    for line in failed:
        console.print(Text(f"FAILED {line}", style="bold red"))


def _one(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{comparison.b.name} against {comparison.a.name}", style="bold")]
    parts += [Text(f"warning: {words}", style="red") for words in comparison.warnings]
    parts += [Text(f"differs: {words}") for words in comparison.differing]
    for load, differences in comparison.loads.items():
        parts += [Text(""), _table(load, differences)]
    return Group(*parts, Text(""), *map(Text, explained(comparison)), Text(""))


def explained(comparison: Comparison) -> list[str]:
    """How to read the intervals, in sentences."""
    judged = [one for differences in comparison.loads.values() for one in differences if one.spread is not None]
    lines = [f"95 % intervals: {'; '.join(comparison.methods)}." if comparison.methods else "No interval could be found."]
    if judged:
        lines.append(f"Of {len(judged)} figures, {len(judged) / 20:.1f} would differ beyond noise by chance alone.")
    if any("rounds" not in method and "repeats" not in method for method in comparison.methods):
        lines.append("One run a side: that two runs of the same server differ is not in the intervals. --paired measures in turn.")
    return lines


def cells(difference: Difference) -> tuple[str, str, str, str, str]:
    """Both values, the difference, its interval, and the verdict with its reason."""
    spread, name = difference.spread, difference.name
    values = quantity(name, difference.a), quantity(name, difference.b)
    verdict = difference.verdict + (f": {difference.reason}" if difference.reason else "")
    if difference.a is None or difference.b is None:
        return (*values, UNKNOWN, "", verdict)
    change = difference.b - difference.a
    if spread is None:
        return (*values, percent(change / difference.a, signed=True) if difference.a else quantity(name, change), "", verdict)
    if spread.relative is None or spread.relative_low is None:
        return (*values, quantity(name, change), interval((spread.low, spread.high), partial(quantity, name)), verdict)
    bounds = interval((spread.relative_low, spread.relative_high), partial(percent, signed=True))
    return (*values, percent(spread.relative, signed=True), bounds, verdict)


def _table(load: str, differences: Sequence[Difference]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate((load or "metric", "A", "B", "difference", "95 % interval", "verdict")):
        table.add_column(column, justify="right" if 0 < index < 5 else "left")
    for difference in differences:
        *figures, verdict = cells(difference)
        table.add_row(difference.name, *figures, Text(verdict, style=STYLES.get(difference.verdict, "")))
    return table
