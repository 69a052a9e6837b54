"""`tokenport bench startup`: from the start of the process to the first token, by phases, several times over.

The first round fills the page cache and the engine's caches; it is kept and marked, and left out of the figures. With --peer vllm each
round starts vLLM's own server with the same arguments as well, and what to read is the ratio within a round.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.commands import starts
from benchmarks.commands.common import add_result_options
from benchmarks.commands.finish import finish
from benchmarks.commands.served import split_words, starting_served
from benchmarks.machine.facts import busyness, machine
from benchmarks.report import document
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep and print. Returns 0."""
    own, server_words = split_words(words)
    options = _parser().parse_args(own)
    if options.repeats < 1 or options.warm_ups < 0:
        raise BenchmarkError(
            f"--repeats {options.repeats} --warm-ups {options.warm_ups}: give at least one repeat and no fewer than 0 warm-ups"
        )
    names = ["tokenport", *(["vllm"] if options.peer else [])]
    facts = {**machine(), **busyness()}
    console = Console()
    rounds: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
    runs: list[dict[str, Any]] = []
    interrupted = False
    try:
        for number in range(options.warm_ups + options.repeats):
            for name in names:
                runs.append(_start(name, number - options.warm_ups, options, server_words, environ))
                rounds[name][number - options.warm_ups] = runs[-1]["metrics"]
                console.print(f"{runs[-1]['label']}: first token after {runs[-1]['metrics']['first_token_s']:.2f} s", highlight=False)
    except KeyboardInterrupt:
        interrupted = True
    kept = {name: {number: start for number, start in found.items() if number >= 0} for name, found in rounds.items()}
    if not kept["tokenport"]:
        raise BenchmarkError("stopped before a start was measured")
    result = _document(words, options, server_words, facts, kept, runs, interrupted=interrupted)
    console.print(_table(result))
    return finish(result, options)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="tokenport bench startup",
        description=__doc__,
        epilog="example: tokenport bench startup --serve MODEL --repeats 5 --peer vllm --out startup.json -- --max-model-len 2048",
    )
    parser.add_argument("--serve", metavar="MODEL", required=True, help="what to start; arguments of `tokenport serve` after --")
    parser.add_argument("--repeats", type=int, default=3, help="starts that count (default: 3)")
    parser.add_argument("--warm-ups", type=int, default=1, help="starts before them, which do not (default: 1)")
    parser.add_argument("--peer", choices=["vllm"], help="start vLLM's own server in turn, with the same arguments")
    add_result_options(parser)
    return parser


def _start(name: str, repeat: int, options: argparse.Namespace, server_words: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """One start as an entry of the document's "runs"; a warm-up has a negative number here and none there."""
    load = starts.load_before()
    with starting_served(options.serve, server_words, options.out, environ, name=name) as server:
        measured = starts.measure_start(server)
    label = f"{name}, repeat {repeat + 1}" if repeat >= 0 else f"{name}, warm-up"
    return {
        "label": label,
        "load": {"kind": "start", "server": name, "is_warm_up": repeat < 0, "load_average_before": load},
        "repeat": max(repeat, 0),
        "valid": True,
        "invalid_reasons": [],
        "metrics": measured,
    }


def _document(
    words: Sequence[str],
    options: argparse.Namespace,
    server_words: Sequence[str],
    facts: Mapping[str, Any],
    kept: Mapping[str, Mapping[int, Mapping[str, Any]]],
    runs: Sequence[dict[str, Any]],
    *,
    interrupted: bool,
) -> dict[str, Any]:
    own = kept["tokenport"]
    metrics: dict[str, Any] = {**starts.summary(list(own.values())), "num_starts": len(own)}
    for name, found in kept.items():
        if name != "tokenport" and found:
            metrics.setdefault("peers", {})[name] = starts.summary(list(found.values()))
            metrics.setdefault("ratios", {})[name] = starts.ratios(own, found)
    ledger = runs[0]["metrics"]["ledger"]
    for index, entry in enumerate(runs):
        entry["index"] = index
        entry["metrics"].pop("ledger")
    return document.assemble(
        "startup",
        command=shlex.join(["tokenport", "bench", "startup", *words]),
        settings={
            **{name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
            "server": server_words,
        },
        target={"serve": options.serve, "peer": options.peer},
        machine=facts,
        versions=facts["packages"],
        definitions=dict(starts.DEFINITIONS),
        metrics=metrics,
        runs=runs,
        in_words=_verdict(metrics, interrupted=interrupted),
        ledger=ledger,
    )


def _verdict(metrics: Mapping[str, Any], *, interrupted: bool) -> str:
    first, number = metrics["first_token_s"], metrics["num_starts"]
    words = f"First token {first['mean']:.1f} s after the start of the process, ready after {metrics['ready_s']['mean']:.1f} s "
    words += f"({number} start{'s' if number != 1 else ''}, {first['min']:.1f} to {first['max']:.1f} s)."
    for name, ratio in metrics.get("ratios", {}).items():
        words += f" That is {ratio['first_token_s']['mean']:.2f} times as long as {name} takes."
    return words + (" It was stopped before all repeats." if interrupted else "")


def _table(result: Mapping[str, Any]) -> Table:
    metrics = result["metrics"]
    table = Table("", "mean", "least", "most", title=result["verdict"])
    rows = {"ready": metrics["ready_s"], "first token": metrics["first_token_s"], "CPU time": metrics["cpu_s"]}
    rows |= {f"  {phase}": figures for phase, figures in metrics["phases_s"].items()}
    for name, peer in metrics.get("peers", {}).items():
        rows |= {f"{name}: ready": peer["ready_s"], f"{name}: first token": peer["first_token_s"]}
    for label, figures in rows.items():
        table.add_row(label, *(f"{figures[name]:.2f} s" for name in ("mean", "min", "max")))
    return table
