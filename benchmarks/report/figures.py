"""Which figures of a result are compared, by which names people write them, and which way is better."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.words import FIGURES, is_number

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s")
_OF_LOAD = (
    *RATES,
    *(f"{latency}.{figure}" for latency in LATENCIES for figure in FIGURES),
    "goodput.requests_per_s",
    "goodput.share",
    "failed_share",
)
_OF_MACHINE = ("efficiency.mbu", "efficiency.mfu", "energy.joules_per_output_token", "cost.usd_per_million_output_tokens")
_HIGHER = ("_per_s", ".mbu", ".mfu", "goodput.share", "kv_cache_tokens", "kv_cache_sequences")
_LOWER = ("_s", "failed_share", "per_output_token", "per_million_output_tokens", "perplexity", "divergence", "kl")

ALIASES: Mapping[str, str] = {
    "tok_s": "output_tokens_per_s",
    "total_tok_s": "total_tokens_per_s",
    "req_s": "requests_per_s",
    "goodput": "goodput.requests_per_s",
    "goodput_share": "goodput.share",
    "failed": "failed_share",
    "mbu": "efficiency.mbu",
    "mfu": "efficiency.mfu",
    "joules": "energy.joules_per_output_token",
    "cost": "cost.usd_per_million_output_tokens",
    **{latency.removesuffix("_s"): f"{latency}.mean" for latency in LATENCIES},
    **{f"{latency.removesuffix('_s')}_{figure}": f"{latency}.{figure}" for latency in LATENCIES for figure in FIGURES},
}


def of_load(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one run or of several pooled; None for what is not known."""
    requests, failed = metrics.get("num_requests") or 0, metrics.get("num_failed") or 0
    found: dict[str, float | None] = {name: _at(metrics, name) for name in _OF_LOAD}
    return {**found, "failed_share": failed / requests if requests else None}


def of_machine(document: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that a document has once, beside its metrics."""
    return {name: value for name in _OF_MACHINE if (value := _at(document, name)) is not None}


def every_number(metrics: Mapping[str, Any], before: str = "") -> dict[str, float | None]:
    """Every number in a tree of metrics with its dotted name; intervals are no figures of their own."""
    found: dict[str, float | None] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and name != "ci":
            found |= every_number(value, f"{before}{name}.")
        elif is_number(value):
            found[f"{before}{name}"] = float(value)
    return found


def interval_of(metrics: Mapping[str, Any], name: str) -> Any:
    """The interval that stands beside a figure of a tree of metrics; None where there is none."""
    *parents, last = name.split(".")
    place: Any = metrics
    for part in parents:
        place = place[part]
    intervals = place.get("ci")
    return intervals.get(last) if isinstance(intervals, Mapping) else None


def better(name: str) -> int:
    """1: higher is better, -1: lower is, 0: it depends."""
    base = name.removesuffix(".mean").partition(".p")[0] if name.startswith(LATENCIES) else name
    if any(base.endswith(end) for end in _HIGHER):
        return 1
    return -1 if any(base.endswith(end) or f"{end}." in base for end in _LOWER) else 0


def _at(tree: Mapping[str, Any], name: str) -> float | None:
    value: Any = tree
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if is_number(value) else None
