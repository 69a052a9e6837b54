"""The comparison of costs for people: a table, what would change it, and where every figure is from."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_COLUMNS = ("", "$/month", "$/M tokens", "in time", "late", "refused", "wait p99", "TTFT p99", "E2E p50", "E2E p99", "in use", "SLO")
_HOLDS = {True: "holds", False: "no", None: "unknown"}


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """All of the report but the single charges."""
    load = report["load"]
    tokens = f"{load['input_tokens_per_request']:,.0f} + {load['output_tokens_per_request']:,.0f} tokens each"
    title = f"{load['requests_per_day']:,.0f} requests a day, {tokens}; {_limits(report['slo'])}"
    table = Table(*_COLUMNS, title=title, title_justify="left", box=SIMPLE_HEAD)
    for option in report["options"]:
        table.add_row(*_row(option), style="bold" if option["is_cheapest"] else None)
    console.print(table)
    told = f"The cheapest that holds the SLO: {report['cheapest']}." if report["cheapest"] else "No option is known to hold the SLO."
    console.print(told, style="bold")
    _print_lines(console, "Break-even with on-demand:", [_break_even(one) for one in report["break_even"]])
    _print_lines(console, "Cheapest at other loads:", [_other_load(one) for one in report["at_other_loads"]])
    _print_lines(console, "Not compared:", report["not_compared"])
    _print_lines(console, "Sources:", report["sources"])
    _print_lines(console, "Assumed:", report["assumed"])


def _row(option: Mapping[str, Any]) -> Sequence[str]:
    per_million = option["usd_per_million_tokens"]
    return (
        ("* " if option["is_cheapest"] else "  ") + option["name"],
        f"{option['usd_per_month']:,.2f}",
        "-" if per_million is None else f"{per_million:,.2f}",
        *(f"{option[name] * 100:.1f} %" for name in ("share_in_time", "share_late", "share_refused")),
        _seconds(option["wait_s"]["p99"]),
        _seconds(option["ttft_s"]["p99"]),
        _seconds(option["e2e_s"]["p50"]),
        _seconds(option["e2e_s"]["p99"]),
        "-" if option["utilisation"] is None else f"{option['utilisation'] * 100:.0f} %",
        _HOLDS[option["holds_slo"]],
    )


def _limits(slo: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{name.removesuffix('_s')} {value:g} s" for name, value in slo.items() if name != "share" and value is not None)
    return f"SLO: {slo['share'] * 100:g} % within {limits}"


def _break_even(entry: Mapping[str, Any]) -> str:
    parts = [f"{entry['option']}: {_point(entry)}"]
    parts += [f"at {one['price_factor'] * 100:.0f} % of its price {_point(one)}" for one in entry["at_other_prices"]]
    return "; ".join(parts)


def _point(found: Mapping[str, Any]) -> str:
    if found["requests_per_day"] is None:
        return f"none ({found['why_not']})"
    use = "" if found["utilisation"] is None else f", {found['utilisation'] * 100:.0f} % in use in the busiest hour"
    return f"{found['requests_per_day']:,.0f} requests a day ({found['num_units']} x{use})"


def _other_load(entry: Mapping[str, Any]) -> str:
    found = entry["why_not"] or f"{entry['cheapest']}, ${entry['usd_per_month']:,.2f} a month"
    return f"{entry['load_factor'] * 100:g} % of the requests: {found}"


def _print_lines(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(f"\n{title}")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
