"""The document of a throughput run: the chosen point's metrics on top, every point beneath, and what surrounds them."""

import argparse
import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands.opened import Opened
from benchmarks.machine import facts
from benchmarks.measuring.cost import Price, cost
from benchmarks.measuring.efficiency import efficiency
from benchmarks.measuring.energy import energy
from benchmarks.measuring.model_work import config_at, model_work, read_config
from benchmarks.measuring.timing import DEFINITIONS
from benchmarks.report import document
from benchmarks.session import Point, pooled, requests


def make_document(
    points: Sequence[Point],
    *,
    words: Sequence[str],
    options: argparse.Namespace,
    target: Opened,
    ceilings: Mapping[str, Any] | None,
    ledger: Mapping[str, Any] | None,
    price: Price | None,
) -> document.Document:
    """Everything that was measured. On top stand the metrics of the chosen load: the only one, or of a sweep or search the best."""
    loads = [
        list(group) for _, group in itertools.groupby(points, key=lambda point: point.load.get("rate") or point.load.get("concurrency"))
    ]
    chosen = choose(loads)
    metrics = pooled(chosen)
    machine = facts.machine()
    reasons = list(dict.fromkeys(reason for point in chosen for reason in point.judgement.invalid_reasons))
    return document.assemble(
        "throughput",
        command=shlex.join(["tokenport", "bench", "throughput", *words]),
        settings=_settings(options),
        target=target.to_json(),
        machine=machine,
        versions=machine.pop("packages"),
        definitions=DEFINITIONS,
        metrics=metrics,
        from_send=pooled(chosen, from_send=True),
        runs=[point.to_json(index) for index, point in enumerate(points)],
        requests=requests(points),
        invalid_reasons=reasons,
        warnings=[*target.capabilities.notes, *dict.fromkeys(warning for point in chosen for warning in point.judgement.warnings)],
        chosen=[index for index, point in enumerate(points) if point in chosen],
        limits=ceilings,
        ledger=ledger,
        efficiency=_efficiency(chosen, options, target, ceilings, ledger),
        energy=_energy(chosen),
        cost=_cost(metrics, price),
    )


def choose(loads: Sequence[Sequence[Point]]) -> Sequence[Point]:
    """Of several loads the one with the most output tokens a second: within the limits where some were given and kept, and believable."""

    def rank(points: Sequence[Point]) -> tuple[bool, bool, float]:
        found = pooled(points)
        is_valid = not any(point.judgement.invalid_reasons for point in points)
        slo, goodput = points[0].slo, found["goodput"]
        keeps = slo is None or (goodput["share"] is not None and goodput["share"] >= slo.share)
        return is_valid, keeps, found["output_tokens_per_s"] or 0.0

    return max(loads, key=rank) if len(loads) > 1 else loads[0]


def _efficiency(
    points: Sequence[Point],
    options: argparse.Namespace,
    target: Opened,
    ceilings: Mapping[str, Any] | None,
    ledger: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Of the first repeat; None where nothing is known of the server's memory."""
    config = read_config(options.model_config) if options.model_config else config_at(target.model_root) if target.is_local else None
    work = model_work(ledger, config)
    if work is None:
        return None
    distinct = not options.shared_prefix and not options.prompts and not options.trace and not options.turns
    return efficiency(points[0].measured.records, points[0].window, work, ceilings, are_prompts_distinct=distinct)


def _energy(points: Sequence[Point]) -> dict[str, Any] | None:
    point = points[0]
    return energy(point.timeline, point.window, (point.metrics()["output_tokens_per_s"] or 0.0) * point.window.length_s)


def _cost(metrics: Mapping[str, Any], price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    goodput = metrics["goodput"]
    if goodput is not None:
        return cost(price, goodput["output_tokens_per_s"], None, rate_kind="goodput")
    return cost(price, metrics["output_tokens_per_s"], metrics["input_tokens_per_s"])


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
