"""One self-contained HTML report of a result: the verdict, charts, tables, and everything that it takes to judge or repeat the run.

It needs no network and may ask for none; all from the document is escaped. Without scripts the tables still tell every figure."""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from benchmarks.report import charts
from benchmarks.report.charts import Chart
from benchmarks.report.figures import every_number, interval_of
from benchmarks.report.html import Markup, element, page, table, tree
from benchmarks.report.limits import cost_in_words, energy_in_words, share_in_words, shares
from benchmarks.report.verdict import chosen_runs, failures, run_name, slo_in_words
from benchmarks.report.words import (
    FIGURES,
    LATENCY_NAMES,
    UNKNOWN,
    interval,
    is_number,
    number,
    percent,
    quantity,
    seconds,
    size,
)

_SCRIPT = Path(__file__).with_name("page.js")
_DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
_DETAILS = ("definitions", "settings", "target", "machine", "versions", "limits", "efficiency", "energy", "cost")


def report_page(document: Mapping[str, Any]) -> str:
    """The page."""
    is_load = document["kind"] == "throughput"
    groups = {
        "Throughput against latency": charts.throughput_against_latency(document) if is_load else [],
        "One stream at a time": charts.latency_by_length(document) if document["kind"] == "latency" else [],
        "Latency": charts.distributions(document) if is_load else [],
        "Over time": charts.timelines(document) if is_load else [],
        "Memory": charts.memory(document),
        "The physical limit": charts.utilisation(document),
    }
    drawn = [chart for group in groups.values() for chart in group]
    body = [*_head(document), *(_tiles(document) if is_load else [])]
    for title, group in groups.items():
        body += [element("h2", title), element("div", *map(_figure, group), class_="charts")] if group else []
    body += [element("h2", "Figures"), *(_figures(document) if is_load else _general(document)), *_ledger(document)]
    body += [element("h2", "How it was measured"), *_details(document)]
    if not drawn:
        return page(_title(document), body)
    body.append(Markup("<noscript><p>The charts need scripts; the tables hold the same figures.</p></noscript>"))
    return page(_title(document), body, [_plotly(), _SCRIPT.read_text(encoding="utf-8")], [chart.to_json() for chart in drawn])


@cache
def _plotly() -> str:
    """Plotly's script. A carriage return would be read as a line feed, and the script's hash no longer be that of the policy."""
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def _title(document: Mapping[str, Any]) -> str:
    target = document["target"]
    return f"{target.get('model') or target.get('endpoint_name') or target.get('url') or 'A server'}: {document['kind']}"


def _head(document: Mapping[str, Any]) -> Iterator[Markup]:
    yield element("h1", _title(document))
    where = document["target"].get("url") or document["target"].get("endpoint_name")
    yield element("p", "tokenport bench, ", document["created"], f", {where}" if where else "", class_="quiet")
    if not document["valid"]:
        reasons = [element("li", reason) for reason in document["invalid_reasons"]]
        title = element("h2", "INVALID: these figures do not show what was to be measured")
        yield element("div", title, element("ul", *reasons), class_="invalid", role="alert")
    yield element("p", document["verdict"], class_="verdict")


def _tiles(document: Mapping[str, Any]) -> Iterator[Markup]:
    metrics = document["metrics"]
    first, each = metrics["ttft_s"], metrics["tpot_s"]
    tiles = [
        (number(metrics["output_tokens_per_s"]), "output tokens/s"),
        (number(metrics["requests_per_s"]), "requests/s"),
        (seconds(first["p50"]), f"TTFT p50; p99 {_or_few(first, 'p99')}"),
        (seconds(each["p50"]), f"TPOT p50; p99 {_or_few(each, 'p99')}"),
        (number(metrics["num_failed"]), f"of {number(metrics['num_requests'])} requests failed"),
    ]
    tiles += [(percent(share), f"of {name}") for name, share in shares(document)[:1]]
    goodput = metrics.get("goodput")
    tiles += [(percent(goodput["share"]), f"within {slo_in_words(goodput['slo'])}")] if goodput else []
    yield element(
        "div", *(element("div", element("b", value), element("span", words), class_="tile") for value, words in tiles), class_="tiles"
    )


def _figure(chart: Chart) -> Markup:
    place = element("div", id=chart.id, class_="chart", role="img", aria_label=f"{chart.title}. {chart.caption}")
    parts = element("h3", chart.title), _legend(chart), place, element("figcaption", chart.caption)
    return element("figure", *parts, class_="wide" if chart.is_wide else None)


def _legend(chart: Chart) -> Markup:
    """Of a chart with one trace its title says what it is."""
    if len(chart.traces) < 2:
        return Markup("")
    entries = []
    for trace in chart.traces:
        line = trace.get("line")
        style = (
            f"border-top: 3px {_DASHES[line['dash']]} {line['color']}" if line else f"height: 12px; background: {trace['marker']['color']}"
        )
        entries.append(element("li", element("i", style=style), trace["name"]))
    return element("ul", *entries, class_="legend")


def _figures(document: Mapping[str, Any]) -> Iterator[Markup]:
    metrics, bounds = document["metrics"], document["metrics"].get("ci") or {}
    rows = [
        (title, number(metrics.get(name)), interval(bounds.get(name), number))
        for name, title in (
            ("output_tokens_per_s", "output tokens/s"),
            ("input_tokens_per_s", "input tokens/s"),
            ("total_tokens_per_s", "all tokens/s"),
            ("requests_per_s", "requests/s"),
            ("mean_concurrency", "requests under way, mean"),
        )
    ]
    yield table(("", "value", "95 % interval"), rows, caption="Throughput, in the window")
    yield element("p", failures(metrics))
    for title, words in (
        ("Of the machine's limit", share_in_words(document)),
        ("Cost", cost_in_words(document)),
        ("Energy", energy_in_words(document)),
    ):
        if words:
            yield element("p", f"{title}: {words}.")
    sides = [_latencies(metrics, "Latency from the scheduled time")]
    if document.get("from_send"):
        sides.append(_latencies(document["from_send"], "Latency from the sending"))
    yield element("div", *sides, class_="charts")
    yield _loads(document)


def _latencies(metrics: Mapping[str, Any], caption: str) -> Markup:
    rows = []
    for name, title in LATENCY_NAMES.items():
        figures = metrics[name]
        for figure in FIGURES:
            bounds = interval((figures.get("ci") or {}).get(figure), seconds)
            rows.append((f"{title} {figure}", _or_few(figures, figure), bounds, number(figures["num_samples"]) if figure == "mean" else ""))
    return table(("", "value", "95 % interval", "samples"), rows, caption=caption)


def _loads(document: Mapping[str, Any]) -> Markup:
    """A line a run: what was sent, what came of it, and whether the run is valid."""
    head = ("load", "repeat", "tokens/s", "requests/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "E2E p50", "failed", "window", "")
    rows = []
    for run in document["runs"]:
        metrics, window = run["metrics"], run.get("window") or {}
        latencies = [seconds(metrics[name][figure]) for name, figure in _SHOWN_OF_RUNS]
        state = "" if run.get("valid", True) else element("span", "INVALID", class_="worse")
        span = f"{seconds(window.get('start_s'))} to {seconds(window.get('end_s'))}" if window else UNKNOWN
        rates = number(metrics["output_tokens_per_s"]), number(metrics["requests_per_s"])
        repeat = (run.get("repeat") or 0) + 1
        rows.append((run_name(document, run), repeat, *rates, *latencies, number(metrics["num_failed"]), span, state))
    return table(head, rows, caption="Runs")


_SHOWN_OF_RUNS = (("ttft_s", "p50"), ("ttft_s", "p99"), ("tpot_s", "p50"), ("tpot_s", "p99"), ("e2e_s", "p50"))


def _general(document: Mapping[str, Any]) -> list[Markup]:
    return [*([_loads(document)] if document["kind"] == "latency" else []), _every_number(document)]


def _every_number(document: Mapping[str, Any]) -> Markup:
    metrics, rows = document["metrics"], []
    for name, value in every_number(metrics).items():
        rows.append((name, quantity(name, value), interval(interval_of(metrics, name), partial(quantity, name))))
    return table(("metric", "value", "95 % interval"), rows, caption="All that was measured")


def _ledger(document: Mapping[str, Any]) -> list[Markup]:
    devices = (document.get("ledger") or {}).get("devices") or []
    if not devices:
        return []
    names = [name for name in devices[0] if name.endswith("_bytes")]
    rows = [(name.removesuffix("_bytes").replace("_", " "), *(size(device.get(name)) for device in devices)) for name in names]
    return [table(("", *(f"rank {device.get('rank', '?')} ({device['device']})" for device in devices)), rows, caption="Memory")]


def _details(document: Mapping[str, Any]) -> Iterator[Markup]:
    command = document["command"]
    yield element("pre", command if isinstance(command, str) else " ".join(command))
    runs = chosen_runs(document) if document["kind"] == "throughput" else []
    for run in runs[:1]:
        window = run.get("window") or {}
        if window:
            words = f"Window: {seconds(window['start_s'])} to {seconds(window['end_s'])} after the start; {window['how']}."
            yield element("p", words)
    for run in runs[:1]:
        if run.get("client"):
            yield element("details", element("summary", "The client's own load"), tree(run["client"]))
    for name in _DETAILS:
        if document.get(name):
            yield element(
                "details", element("summary", name.capitalize()), tree(document[name]), open="" if name == "definitions" else None
            )


def _or_few(figures: Mapping[str, Any], figure: str) -> str:
    return seconds(figures[figure]) if is_number(figures[figure]) else f"too few samples ({figures['num_samples']})"
