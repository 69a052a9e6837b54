"""What `tokenport bench memory` keeps and prints: the document, the verdict, a column for each configuration."""

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.commands.memory_trial import DEFINITIONS
from benchmarks.commands.settings_sweep import parse_range
from benchmarks.report import document

_GIB = 2**30
_ROWS = {
    "weights": "weights_bytes",
    "KV cache": "kv_cache_bytes",
    "activations, peak": "activation_peak_bytes",
    "CUDA graphs": "cuda_graph_bytes",
    "rest of the processes": "non_torch_bytes",
    "free": "free_bytes",
}
_PHASES = {"peak while loading": "loading", "peak under load": "under load"}
_TABLE_COLUMNS = 4


def make_document(
    words: Sequence[str],
    options: argparse.Namespace,
    server_words: Sequence[str],
    facts: Mapping[str, Any],
    runs: Sequence[dict[str, Any]],
    *,
    is_interrupted: bool,
) -> dict[str, Any]:
    """Of all that was tried. What does not fit is a result too; where nothing does, there is nothing to quote."""
    fitting = [entry for entry in runs if entry["metrics"]["fits"]]
    ledgers = [entry["metrics"].get("ledgers", {}).get("under_load") for entry in reversed(fitting or runs)]
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items() if name != "api_key"}
    return document.assemble(
        "memory",
        command=shlex.join(["tokenport", "bench", "memory", *words]),
        settings={**settings, "server": list(server_words)},
        target={"serve": options.serve, "url": options.url or options.positional_url},
        machine=facts,
        versions=facts["packages"],
        definitions=dict(DEFINITIONS),
        metrics=_metrics(runs, options),
        runs=runs,
        in_words=_verdict(runs, options) + (" It was stopped before all was tried." if is_interrupted else ""),
        invalid_reasons=[] if fitting else [f"nothing that was tried fits: {runs[-1]['metrics']['reason']}"],
        ledger=next((found for found in ledgers if found), None),
    )


def _metrics(runs: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Of one configuration its own; of several how many fit, and of a search the largest."""
    if len(runs) == 1 and options.largest is None:
        return {name: value for name, value in runs[0]["metrics"].items() if name not in ("ledgers", "sequences")}
    found: dict[str, Any] = {"num_tried": len(runs), "num_that_fit": sum(entry["metrics"]["fits"] for entry in runs)}
    if options.largest is not None:
        name = parse_range(options.largest).name
        fitting = [int(entry["load"]["settings"][name]) for entry in runs if entry["metrics"]["fits"]]
        found[f"largest_{name}"] = max(fitting, default=None)
    return found


def _verdict(runs: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> str:
    fitting = [entry for entry in runs if entry["metrics"]["fits"]]
    if not fitting:
        return f"Nothing that was tried fits: {runs[-1]['metrics']['reason']}."
    if options.largest is not None:
        name = parse_range(options.largest).name
        largest = max(int(entry["load"]["settings"][name]) for entry in fitting)
        failed = [int(entry["load"]["settings"][name]) for entry in runs if not entry["metrics"]["fits"]]
        above = f"; {min(failed)} does not" if failed else ", the largest that was asked for"
        return f"The largest {name} that fits is {largest}{above} ({len(runs)} starts)."
    best = max(fitting, key=lambda entry: entry["metrics"]["kv_cache_tokens"] or 0)
    metrics = best["metrics"]
    sequences = " and ".join(f"{number} sequences of {length} tokens" for length, number in metrics["most_sequences"].items())
    words = f"{len(fitting)} of {len(runs)} configurations fit. Most room with {best['label']}: " if len(runs) > 1 else ""
    words += f"weights {metrics['weights_bytes'] / _GIB:.2f} GiB, KV cache {metrics['kv_cache_bytes'] / _GIB:.2f} GiB for "
    words += f"{metrics['kv_cache_tokens']} tokens; a context of {metrics['longest_context_tokens']} tokens ran"
    return words + (f", and {sequences} ran at once." if sequences else ".")


def tables(runs: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """A column a configuration, a few beside each other."""
    for first in range(0, len(runs), _TABLE_COLUMNS):
        part = runs[first : first + _TABLE_COLUMNS]
        table = Table("GiB", *(entry["label"].replace(" ", "\n") for entry in part))
        columns = [dict(_cells(entry["metrics"])) for entry in part]
        for name in dict.fromkeys(name for column in columns for name in column):
            table.add_row(name, *(column.get(name, "") for column in columns))
        yield table


def _cells(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "fits", "yes" if metrics["fits"] else "no"
    plan = metrics.get("plan") or {}
    for name, key in _ROWS.items():
        if metrics.get(key) is not None:
            yield name, f"{metrics[key] / _GIB:.2f}"
        if key in plan:
            estimate, low, high = (plan[key][end] / _GIB for end in ("estimate", "low", "high"))
            yield f"{name}, planned for a rank", f"{estimate:.2f} ({low:.2f} to {high:.2f})"
    for name, phase in _PHASES.items():
        # On a GPU that of the cards, else that of the processes.
        peak = metrics["peaks"].get(phase, {})
        size = peak.get("gpu_used_bytes", peak.get("pss_bytes"))
        if size is not None:
            yield name, f"{size / _GIB:.2f}"
    if metrics.get("kv_cache_tokens") is not None:
        yield "tokens in the KV cache", str(metrics["kv_cache_tokens"])
        yield "longest context that ran", str(metrics["longest_context_tokens"] or "none")
        for length, number in metrics["most_sequences"].items():
            yield f"most at once, of {length} tokens", str(number)
