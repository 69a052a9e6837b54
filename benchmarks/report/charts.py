"""The report's charts as Plotly's traces and layouts, in plain data. Colours are names of the style sheet's; texts are escaped, since
Plotly reads some markup. Thousands of samples become some hundred points."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.measuring.record import Record
from benchmarks.report.limits import SHARES
from benchmarks.report.samples import due_in, latencies_of, records_of, token_times, window_of
from benchmarks.report.verdict import chosen_runs, runs_by_load
from benchmarks.report.words import LATENCY_MEANINGS, LATENCY_NAMES, is_number, number, percent, plural, size

_CDF_POINTS = 300
_TIMELINE_POINTS = 400
_RATE_BINS, _LEAST_BIN_S = 120, 0.1
_LONG_TAIL = 20
"""Where the largest sample is so many times the median, a linear axis would show the tail alone."""
_PARTS: Mapping[str, str] = {
    "weights_bytes": "weights",
    "kv_cache_bytes": "KV cache",
    "activation_peak_bytes": "activation peak",
    "cuda_graph_bytes": "CUDA graphs",
    "non_torch_bytes": "non torch",
    "other_bytes": "other",
    "free_bytes": "free",
}
_ABSOLUTE: Mapping[str, tuple[str, str, float, str]] = {
    "mbu": ("bytes_per_s", "bandwidth_limit_bytes_per_s", 1e9, "GB/s"),
    "mfu": ("flops_per_s", "flops_limit_per_s", 1e12, "TFLOP/s"),
}
_RATE_HOVER = "%{text}<br>%{x:,.1f} tokens/s, %{y:.3~g} ms"

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """`caption` says what is to be seen, for those who do not see it too."""

    id: str
    title: str
    caption: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    is_wide: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {"id": self.id, "traces": list(self.traces), "layout": dict(self.layout)}


def throughput_against_latency(document: Mapping[str, Any]) -> list[Chart]:
    """A point a load, repeats averaged, joined in the order of the load: the further right and down, the better."""
    charts = []
    for latency in ("ttft_s", "tpot_s"):
        traces = []
        for index, (figure, dash) in enumerate((("p50", "solid"), ("p99", "dash"))):
            points = [_point(name, runs, latency, figure) for name, runs in runs_by_load(document).items()]
            known = [point for point in points if point is not None]
            if known:
                traces.append(_curve(known, f"{LATENCY_NAMES[latency]} {figure}", index, dash))
        if traces:
            title = f"{LATENCY_NAMES[latency]} against throughput"
            caption = (
                f"{LATENCY_MEANINGS[latency].capitalize()}, from the scheduled time. A point is a load; further right and down is better."
            )
            layout = {"height": 340, "xaxis": _axis("output tokens/s", from_zero=True), "yaxis": _axis("ms", from_zero=True)}
            charts.append(Chart(f"curve-{latency}", title, caption, traces, layout))
    return charts


def latency_by_length(document: Mapping[str, Any]) -> list[Chart]:
    """Of one stream at a time: a point a length of the prompt."""
    charts = []
    for latency in ("ttft_s", "tpot_s"):
        traces = []
        for index, (figure, dash) in enumerate((("p50", "solid"), ("p90", "dash"))):
            # The load tells a fixed length as the text that was given for it.
            points = [(str(run["load"].get("input_length")), run["metrics"][latency][figure]) for run in document["runs"]]
            known = sorted((int(length), value * 1e3) for length, value in points if length.isdecimal() and is_number(value))
            if known:
                labels = [(plural(length, "token"), float(length), value) for length, value in known]
                traces.append(_curve(labels, f"{LATENCY_NAMES[latency]} {figure}", index, dash, "%{text}: %{y:.3~g} ms"))
        if traces:
            title = f"{LATENCY_NAMES[latency]} by length of the prompt"
            caption = f"{LATENCY_MEANINGS[latency].capitalize()}, one stream at a time."
            layout = {"height": 340, "xaxis": _axis("tokens of prompt", from_zero=True), "yaxis": _axis("ms", from_zero=True)}
            charts.append(Chart(f"length-{latency}", title, caption, traces, layout))
    return charts


def distributions(document: Mapping[str, Any]) -> list[Chart]:
    """Of each latency the share of samples that took at most so long, over the window of the runs on top."""
    due = _due_of_chosen(document)
    charts = []
    for latency, name in LATENCY_NAMES.items():
        # Between pieces of output the time of sending makes no difference.
        sides = (False, True) if latency in ("ttft_s", "e2e_s") else (False,)
        samples = {side: _all(due, latency, from_send=side) for side in sides}
        if not len(samples[False]):
            continue
        is_log = samples[False].max() > _LONG_TAIL * max(float(np.median(samples[False])), 1e-9) and samples[False].min() > 0
        traces = [_cdf(found, "from send" if side else "from scheduled", side) for side, found in samples.items() if len(found)]
        caption = f"{LATENCY_MEANINGS[latency].capitalize()}; {plural(len(samples[False]), 'sample')} in the window."
        layout = {
            "height": 300,
            "xaxis": {**_axis("ms", from_zero=False), **({"type": "log"} if is_log else {})},
            "yaxis": {"title": {"text": "share of samples"}, "range": [0, 1.02], "tickformat": ".0%"},
        }
        charts.append(Chart(f"cdf-{latency}", f"{name} distribution", caption, traces, layout))
    return charts


def timelines(document: Mapping[str, Any]) -> list[Chart]:
    """What happened second by second in the first of the runs on top."""
    runs = chosen_runs(document)
    if not runs:
        return []
    records = records_of(document, runs[0])
    window = window_of(runs[0], records)
    shade = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": window.start_s, "x1": window.end_s, "y0": 0, "y1": 1,
            "fillcolor": "var(--window)", "line": {"width": 0}, "layer": "below",
        }
    ]  # fmt: skip
    end = max([window.end_s, *(record.ended_s for record in records if record.ended_s is not None)])
    charts = [_rate_over_time(records, end, shade), _state_over_time(runs[0].get("timeline") or [], end, shade)]
    return [chart for chart in charts if chart is not None]


def memory(document: Mapping[str, Any]) -> list[Chart]:
    """A bar a device, its parts one after the other."""
    devices = (document.get("ledger") or {}).get("devices") or []
    if not devices:
        return []
    names = [html.escape(f"rank {device.get('rank', index)} ({device['device']})") for index, device in enumerate(devices)]
    traces = []
    for index, (key, name) in enumerate(_PARTS.items()):
        values = [device.get(key) or 0 for device in devices]
        if any(values):
            traces.append(
                {
                    "type": "bar", "orientation": "h", "y": names, "x": [value / 2**30 for value in values], "name": name,
                    "customdata": [size(value) for value in values], "hovertemplate": f"{name}: %{{customdata}}<extra>%{{y}}</extra>",
                    "marker": {"color": f"var(--series-{index})", "line": {"color": "var(--panel)", "width": 1}},
                }
            )  # fmt: skip
    layout = {
        "height": 130 + 44 * len(devices), "barmode": "stack", "bargap": 0.35, "xaxis": _axis("GiB", from_zero=True),
        "yaxis": {"autorange": "reversed", "fixedrange": True},
    }  # fmt: skip
    caption = "The parts of a device add up to what the engine could use of it, as the server measured."
    return [Chart("memory", "Memory of each device", caption, traces, layout, is_wide=True)]


def utilisation(document: Mapping[str, Any]) -> list[Chart]:
    """What was reached of each limit of the machine."""
    efficiency = document.get("efficiency") or {}
    known = {name: efficiency[key] for key, name in SHARES.items() if is_number(efficiency.get(key))}
    if not known:
        return []
    texts = [_share_text(efficiency, key) for key, name in SHARES.items() if name in known]
    trace = {
        "type": "bar", "orientation": "h", "y": list(known), "x": list(known.values()),
        "text": texts, "textposition": "auto",
        "hoverinfo": "skip", "marker": {"color": "var(--series-0)"},
    }  # fmt: skip
    highest = max(1.05, 1.05 * max(known.values()))
    ceiling = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "var(--series-1)", "width": 2, "dash": "dash"},
    }
    layout = {
        "height": 90 + 50 * len(known), "bargap": 0.4, "shapes": [ceiling],
        "xaxis": {"range": [0, highest], "tickformat": ".0%", "title": {"text": "of the ceiling measured here"}, "fixedrange": True},
        "yaxis": {"autorange": "reversed", "fixedrange": True},
    }  # fmt: skip
    caption = "The dashed line is what this machine did at most when its memory and arithmetic were measured on the spot."
    return [Chart("utilisation", "Share of the physical limit", caption, [trace], layout, is_wide=True)]


def _share_text(efficiency: Mapping[str, Any], key: str) -> str:
    """`41.3 %, 9.9 of 24.0 GB/s`: a share alone does not tell a slow machine from a fast one."""
    reached, limit, scale, unit = _ABSOLUTE[key]
    if not is_number(efficiency.get(reached)) or not is_number(efficiency.get(limit)):
        return percent(efficiency[key])
    return f"{percent(efficiency[key])}, {number(efficiency[reached] / scale)} of {number(efficiency[limit] / scale)} {unit}"


def _axis(title: str, *, from_zero: bool) -> dict[str, Any]:
    return {"title": {"text": title}, **({"rangemode": "tozero"} if from_zero else {})}


def _point(name: str, runs: Sequence[Mapping[str, Any]], latency: str, figure: str) -> tuple[str, float, float] | None:
    rates = [run["metrics"]["output_tokens_per_s"] for run in runs]
    values = [run["metrics"][latency][figure] for run in runs]
    if None in rates or None in values:
        return None
    return html.escape(name), float(np.mean(rates)), float(np.mean(values)) * 1e3


def _curve(points: Sequence[tuple[str, float, float]], name: str, index: int, dash: str, hover: str = _RATE_HOVER) -> Trace:
    labels, rates, values = zip(*points, strict=True)
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": rates, "y": values, "text": labels,
        "hovertemplate": f"{hover}<extra>{name}</extra>",
        "line": {"color": f"var(--series-{index})", "dash": dash, "width": 2},
        "marker": {"color": f"var(--series-{index})", "size": 8, "symbol": ("circle", "square")[index]},
    }  # fmt: skip


def _due_of_chosen(document: Mapping[str, Any]) -> list[Record]:
    found: list[Record] = []
    for run in chosen_runs(document):
        records = records_of(document, run)
        found += due_in(records, window_of(run, records))
    return found


def _all(due: Sequence[Record], latency: str, *, from_send: bool) -> Any:
    return np.asarray([sample for record in due for sample in latencies_of(record, latency, from_send=from_send)], dtype=float)


def _cdf(samples: Any, name: str, is_second: bool) -> Trace:
    shares = np.linspace(0, 1, min(_CDF_POINTS, len(samples)))
    values = np.quantile(samples, shares) * 1e3
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": _rounded(values), "y": _rounded(shares),
        "hovertemplate": "%{y:.1%} within %{x:.4~g} ms<extra>" + name + "</extra>",
        "line": {"color": f"var(--series-{int(is_second)})", "dash": "dash" if is_second else "solid", "width": 2},
    }  # fmt: skip


def _rate_over_time(records: Sequence[Record], end_s: float, shade: Sequence[Trace]) -> Chart | None:
    found = [token_times(record) for record in records]
    times = np.concatenate([one[0] for one in found]) if found else np.zeros(0)
    if not len(times) or end_s <= 0:
        return None
    counts = np.concatenate([one[1] for one in found])
    width = _nice(max(end_s / _RATE_BINS, _LEAST_BIN_S))
    edges = np.arange(0, end_s + width, width)
    amounts, _ = np.histogram(times, bins=edges, weights=counts)
    trace = {
        "type": "bar", "x": _rounded(edges[:-1] + width / 2), "y": _rounded(amounts / width), "width": width, "name": "output tokens/s",
        "marker": {"color": "var(--series-0)"}, "hovertemplate": "%{y:,.1f} tokens/s at %{x:.1f} s<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 260, "bargap": 0, "shapes": shade, "xaxis": {"title": {"text": "seconds"}, "range": [0, end_s]},
        "yaxis": _axis("output tokens/s", from_zero=True),
    }  # fmt: skip
    caption = f"From the raw arrivals, in steps of {width:g} s. The shaded part is the window that the figures are of."
    return Chart("rate", "Output over time", caption, [trace], layout, is_wide=True)


def _state_over_time(timeline: Sequence[Mapping[str, Any]], end_s: float, shade: Sequence[Trace]) -> Chart | None:
    rows = timeline[:: math.ceil(len(timeline) / _TIMELINE_POINTS) or 1]
    traces = []
    for index, (key, name, dash) in enumerate(
        (("running", "running", "solid"), ("waiting", "waiting", "dash"), ("kv_cache_usage", "KV cache in use", "dot"))
    ):
        if any(row.get(key) is not None for row in rows):
            trace = {
                "type": "scatter", "mode": "lines", "name": name, "x": [row["at_s"] for row in rows], "y": [row.get(key) for row in rows],
                "line": {"color": f"var(--series-{index})", "dash": dash, "width": 2, "shape": "hv"},
            }  # fmt: skip
            traces.append({**trace, **({"yaxis": "y2"} if key == "kv_cache_usage" else {})})
    if not traces:
        return None
    layout = {
        "height": 300, "shapes": shade, "xaxis": {"title": {"text": "seconds"}, "range": [0, end_s]},
        "yaxis": _axis("requests", from_zero=True),
        "yaxis2": {
            "title": {"text": "KV cache"}, "overlaying": "y", "side": "right", "range": [0, 1.02], "showgrid": False,
            "tickmode": "linear", "tick0": 0, "dtick": 0.25, "tickformat": ".0%",
        },
    }  # fmt: skip
    caption = "As the server tells: requests it works on, requests that wait in it, and the share of the KV cache in use (right axis)."
    return Chart("state", "The server over time", caption, traces, layout, is_wide=True)


def _nice(width: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(width))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9)))


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
