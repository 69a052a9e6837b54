"""A comparison as a page of its own: warnings, then a table a load with each interval drawn beside its figures. It has no scripts."""

from collections.abc import Sequence

from benchmarks.report.comparison import Comparison, Difference
from benchmarks.report.comparison_terminal import cells, explained
from benchmarks.report.html import Markup, element, page, table

# The verdict next to the name: on a phone the rest of the row is scrolled to.
_HEAD = ("", "verdict", "A", "B", "difference", "95 % interval", "around no change")
_WIDTH, _HEIGHT, _MARGIN = 180, 14, 6


def comparison_page(comparisons: Sequence[Comparison], failed: Sequence[str]) -> str:
    """HTML that needs nothing but a browser."""
    title = f"{', '.join(comparison.b.name for comparison in comparisons)} against {comparisons[0].a.name}"
    body = [element("h1", title), element("p", "tokenport bench compare", class_="quiet")]
    if failed:
        body.append(element("div", element("h2", "FAILED"), element("ul", *(element("li", line) for line in failed)), class_="invalid"))
    for comparison in comparisons:
        body += _one(comparison)
    return page(title, body)


def _one(comparison: Comparison) -> list[Markup]:
    parts = [element("h2", f"{comparison.b.name} (B) against {comparison.a.name} (A)"), element("p", summary(comparison), class_="verdict")]
    if comparison.warnings:
        parts.append(element("ul", *(element("li", words) for words in comparison.warnings), class_="warnings"))
    for load, differences in comparison.loads.items():
        reach = max((abs(bound) for one in differences for bound in _bounds(one)), default=0.0)
        rows = [(one.name, *_row(one, reach)) for one in differences]
        parts.append(table(_HEAD, rows, caption=load or "All figures"))
    parts += [element("p", line, class_="quiet") for line in explained(comparison)]
    if comparison.differing:
        lines = element("ul", *(element("li", words) for words in comparison.differing))
        parts.append(element("details", element("summary", "What differs"), lines))
    return parts


def summary(comparison: Comparison) -> str:
    """How many figures are better, worse and noise."""
    verdicts = [one.verdict for differences in comparison.loads.values() for one in differences]
    counts = [
        f"{verdicts.count(verdict)} {verdict}" for verdict in ("better", "worse", "changed", "noise", "unclear") if verdict in verdicts
    ]
    return f"Of {len(verdicts)} figures: {', '.join(counts)}."


def _row(difference: Difference, reach: float) -> list[str]:
    a, b, change, bounds, verdict = cells(difference)
    return [element("span", verdict, class_=difference.verdict), a, b, change, bounds, _drawn(difference, reach)]


def _bounds(difference: Difference) -> list[float]:
    spread = difference.spread
    return (
        [] if spread is None or spread.relative_low is None or spread.relative_high is None else [spread.relative_low, spread.relative_high]
    )


def _drawn(difference: Difference, reach: float) -> Markup:
    """The interval as a line with its middle as a dot, on an axis that all figures of the table share."""
    bounds, spread = _bounds(difference), difference.spread
    if not bounds or reach == 0 or spread is None or spread.relative is None:
        return Markup("")
    middle = _HEIGHT / 2
    low, high, value = (_place(share, reach) for share in (*bounds, spread.relative))
    zero = element("line", x1=_WIDTH / 2, x2=_WIDTH / 2, y1=0, y2=_HEIGHT, class_="zero")
    bar = element("line", x1=low, x2=high, y1=middle, y2=middle, class_="bar")
    drawing = zero, bar, element("circle", cx=value, cy=middle, r=3)
    return element("svg", *drawing, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_=difference.verdict, aria_hidden="true")


def _place(share: float, reach: float) -> float:
    return round(_WIDTH / 2 + share / reach * (_WIDTH / 2 - _MARGIN), 1)
