"""The result on the terminal: why it is invalid, the verdict, then the figures. Colours only where there is a terminal."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.report.figures import every_number, interval_of
from benchmarks.report.limits import cost_in_words, energy_in_words, share_in_words
from benchmarks.report.verdict import failures, slo_in_words
from benchmarks.report.words import (
    FIGURES,
    LATENCY_NAMES,
    UNKNOWN,
    interval,
    is_number,
    load_name,
    number,
    percent,
    quantity,
    seconds,
)

_WIDTH_OF_FILES = 140


def show(document: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the document."""
    (console or open_console()).print(as_tables(document))


def open_console() -> Console:
    """Stdout; where it is no terminal, wide enough that no table has to break its lines."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_OF_FILES)
    return console


def as_tables(document: Mapping[str, Any]) -> RenderableType:
    """What `show` prints."""
    parts: list[RenderableType] = [*_invalid(document), Text(document["verdict"]), Text("")]
    if document["kind"] == "throughput":
        parts += [_rates(document), Text(""), _latencies(document)]
        parts += [Text(""), _points(document)] if len(document["runs"]) > 1 else []
    else:
        parts.append(_generic(document["metrics"]))
    return Group(*parts)


def _invalid(document: Mapping[str, Any]) -> list[RenderableType]:
    if document["valid"]:
        return []
    title = Text("INVALID: these figures do not show what was to be measured", style="bold red")
    return [title, *(Text(f"  {reason}", style="red") for reason in document["invalid_reasons"])]


def _rates(document: Mapping[str, Any]) -> Table:
    metrics = document["metrics"]
    table = _table("", "", "95 % interval")
    table.show_header = any((metrics.get("ci") or {}).values())
    for name, title in (
        ("output_tokens_per_s", "output tokens/s"),
        ("total_tokens_per_s", "all tokens/s"),
        ("requests_per_s", "requests/s"),
    ):
        table.add_row(title, number(metrics.get(name)), interval((metrics.get("ci") or {}).get(name), number))
    goodput = metrics.get("goodput")
    if goodput:
        kept = f"{percent(goodput['share'])} within {slo_in_words(goodput['slo'])}"
        table.add_row("goodput, requests/s", f"{number(goodput.get('requests_per_s'))} ({kept})", "")
    table.add_row("requests", failures(metrics), "", style=None if document["metrics"]["num_failed"] == 0 else "yellow")
    if is_number(metrics.get("mean_concurrency")):
        table.add_row("under way in the mean", number(metrics["mean_concurrency"]), "")
    for title, words in (
        ("of the machine's limit", share_in_words(document)),
        ("cost", cost_in_words(document)),
        ("energy", energy_in_words(document)),
    ):
        if words:
            table.add_row(title, words, "")
    return table


def _latencies(document: Mapping[str, Any]) -> Table:
    """From the scheduled time and from the sending, side by side; they differ by the wait in the client."""
    table = _table("latency", "", "from scheduled", "95 % interval", "from send", "95 % interval")
    sides = (document["metrics"], document.get("from_send") or {})
    for name, title in LATENCY_NAMES.items():
        for figure in FIGURES:
            cells = [cell for side in sides for cell in _latency_cells(side.get(name), figure)]
            table.add_row(title if figure == FIGURES[0] else "", figure, *cells, end_section=figure == FIGURES[-1])
    return table


def _latency_cells(figures: Mapping[str, Any] | None, figure: str) -> tuple[str, str]:
    if not figures:
        return UNKNOWN, ""
    if not is_number(figures[figure]):
        return f"too few samples ({figures['num_samples']})", ""
    return seconds(figures[figure]), interval((figures.get("ci") or {}).get(figure), seconds)


def _points(document: Mapping[str, Any]) -> Table:
    """A line a run: the points of a sweep, and their repeats."""
    table = _table("load", "tokens/s", "requests/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "failed", "")
    has_repeats = len({run.get("repeat") or 0 for run in document["runs"]}) > 1
    for run in document["runs"]:
        metrics = run["metrics"]
        name = load_name(run.get("load")) + (f", repeat {(run.get('repeat') or 0) + 1}" if has_repeats else "")
        latencies = [seconds(metrics[name][figure]) for name in ("ttft_s", "tpot_s") for figure in ("p50", "p99")]
        state = Text("") if run.get("valid", True) else Text("INVALID", style="red")
        rates = [number(metrics[rate]) for rate in ("output_tokens_per_s", "requests_per_s")]
        table.add_row(name, *rates, *latencies, number(metrics["num_failed"]), state)
    return table


def _generic(metrics: Mapping[str, Any]) -> Table:
    table = _table("metric", "value", "95 % interval")
    for name, value in every_number(metrics).items():
        table.add_row(name, quantity(name, value), interval(interval_of(metrics, name), partial(quantity, name)))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or not column else "right")
    return table
