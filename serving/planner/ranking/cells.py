"""How figures are written in tables and sentences: three digits that count, an estimate with its ends."""

from collections.abc import Iterable, Sequence

from serving.planner.interval import Interval


def figure(value: float) -> str:
    """`0.0612`, `43.2`, `13300`."""
    return f"{float(f'{value:.3g}'):.15g}"


def seconds(value: float) -> str:
    """`2.5 s`, `43.2 ms`."""
    return f"{figure(value)} s" if value >= 1 else f"{figure(value * 1000)} ms"


def ends(interval: Interval | None, unit: str = "") -> str:
    """`43.2 ms (26 to 77)`; empty where nothing is known."""
    if interval is None:
        return ""
    return f"{figure(interval.estimate)}{unit} ({figure(interval.low)} to {figure(interval.high)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines for a terminal, each column as wide as its widest cell."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
