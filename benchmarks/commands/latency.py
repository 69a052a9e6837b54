"""`tokenport bench latency`: one stream at a time, over lengths of the prompt: what a single user waits for."""

import argparse
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.commands.carrying_out import Session
from benchmarks.commands.common import INTERRUPTED_EXIT_CODE, Stop, add_result_options, add_target_options
from benchmarks.commands.finish import finish
from benchmarks.commands.opened import Opened, opened
from benchmarks.commands.served import split_words
from benchmarks.load.build import LoadOptions
from benchmarks.load.lengths import fixed
from benchmarks.machine import limits
from benchmarks.machine.facts import busyness, machine
from benchmarks.measuring.efficiency import efficiency
from benchmarks.measuring.model_work import config_at, model_work, read_config
from benchmarks.measuring.timing import DEFINITIONS
from benchmarks.measuring.window import whole_run
from benchmarks.report import document
from benchmarks.session import Point, requests
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser

_LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
_DESCRIPTION = """\
One request at a time, each when the answer before it has ended: TTFT, TPOT and E2E latency for each length of the prompt. All requests
after the warm-up count. Lengths are exact where the tokenizer is known.

  tokenport bench latency http://127.0.0.1:8080 --input-lens 32,128,512 --output-len 64 --repeats 20 --out latency.json
  tokenport bench latency --serve MODEL --limits -- --quantization int8
"""


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep, print. Returns the exit code."""
    own, server_words = split_words(words)
    options = _parser().parse_args(own)
    lengths = _lengths(options.input_lens)
    if options.repeats < 1 or options.output_len < 1:
        raise BenchmarkError(f"--repeats {options.repeats} --output-len {options.output_len}: give numbers above 0")
    facts = {**machine(), **busyness()}
    with opened(options, server_words, environ) as target, Stop() as stop:
        _fits(lengths, options.output_len, target)
        if options.limits and not target.is_local:
            raise BenchmarkError("--limits measures this machine, and the server is on another: run it there")
        ceilings = limits.measure(environ=environ) if options.limits else None
        session = Session(target, None, stop.event, 1, 1)
        points = [point for length in lengths for point in _points(session, _load(length, options, target))]
        ledger = target.ledger()
        is_stopped = stop.event.is_set()
    result = _document(points, words=words, options=options, target=target, facts=facts, ceilings=ceilings, ledger=ledger)
    code = finish(result, options)
    _show(result)
    return INTERRUPTED_EXIT_CODE if is_stopped else code


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="tokenport bench latency", description=_DESCRIPTION)
    add_target_options(parser)
    group = parser.add_argument_group("what is measured")
    group.add_argument("--input-lens", default="32,128,512", metavar="N,N", help="tokens of the prompt (default: 32,128,512)")
    group.add_argument("--output-len", type=int, default=64, metavar="N", help="tokens of each answer (default: 64)")
    group.add_argument("--repeats", type=int, default=10, metavar="N", help="requests of each length (default: 10)")
    group.add_argument("--tokenizer", metavar="DIR", help="count tokens with this folder's tokenizer (default: the server's /tokenize)")
    group.add_argument("--limits", action="store_true", help="measure the machine's bandwidth and arithmetic first, for MBU and MFU")
    group.add_argument("--model-config", type=Path, metavar="FILE", help="the model's config.json, for MBU and MFU")
    add_result_options(parser)
    return parser


def _lengths(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise BenchmarkError(f"--input-lens {text!r}: write whole numbers of tokens above 0, like 32,128,512")
    return sorted({int(word) for word in words})


def _fits(lengths: Sequence[int], output_len: int, target: Opened) -> None:
    longest = lengths[-1] + output_len
    if target.max_model_len is not None and longest > target.max_model_len:
        raise BenchmarkError(
            f"--input-lens {lengths[-1]} with --output-len {output_len} is {longest} tokens; the server takes {target.max_model_len}"
        )


def _load(length: int, options: argparse.Namespace, target: Opened) -> LoadOptions:
    return LoadOptions(
        prompt_form=target.prompt_form,
        num_requests=options.repeats,
        input_length=fixed(length),
        output_length=fixed(options.output_len),
        max_model_len=target.max_model_len,
    )


def _points(session: Session, load: LoadOptions) -> Sequence[Point]:
    """One length: a warm-up of its own, since kernels are chosen by shape. With one stream there is no ramp: all requests count."""
    if session.is_stopped:
        return []
    session.warm_up(load, 2)
    return [dataclasses.replace(point, window=_all_of(point)) for point in session.repeated(load)]


def _all_of(point: Point) -> Any:
    return dataclasses.replace(whole_run(point.measured.records), how="all requests: one stream has no ramp", is_steady=True)


def _document(
    points: Sequence[Point],
    *,
    words: Sequence[str],
    options: argparse.Namespace,
    target: Opened,
    facts: Mapping[str, Any],
    ceilings: Mapping[str, Any] | None,
    ledger: Mapping[str, Any] | None,
) -> dict[str, Any]:
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items() if name != "api_key"}
    shares = [_efficiency(point, options, target, ceilings, ledger) for point in points]
    return document.assemble(
        "latency",
        command=shlex.join(["tokenport", "bench", "latency", *words]),
        settings=settings,
        target=target.to_json(),
        machine=facts,
        versions=facts["packages"],
        definitions=DEFINITIONS,
        metrics=_metrics(points, from_send=False),
        from_send=_metrics(points, from_send=True),
        runs=[{**point.to_json(index), "efficiency": shares[index]} for index, point in enumerate(points)],
        requests=requests(points),
        invalid_reasons=list(dict.fromkeys(reason for point in points for reason in point.judgement.invalid_reasons)),
        warnings=[*target.capabilities.notes, *dict.fromkeys(warning for point in points for warning in point.judgement.warnings)],
        in_words=_verdict(points),
        limits=ceilings,
        ledger=ledger,
        # Of the shortest prompts: there it is decoding alone that counts.
        efficiency=shares[0],
    )


def _efficiency(
    point: Point, options: argparse.Namespace, target: Opened, ceilings: Mapping[str, Any] | None, ledger: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    config = read_config(options.model_config) if options.model_config else config_at(target.model_root) if target.is_local else None
    work = model_work(ledger, config)
    return None if work is None else efficiency(point.measured.records, point.window, work, ceilings, are_prompts_distinct=True)


def _metrics(points: Sequence[Point], *, from_send: bool) -> dict[str, Any]:
    """Latencies by the length of the prompt; the numbers of requests over all of them."""
    found = {_length_of(point): point.metrics(from_send=from_send) for point in points}
    sums = {name: sum(metrics[name] for metrics in found.values()) for name in ("num_requests", "num_completed", "num_failed")}
    return {**sums, "by_input_len": {length: {name: metrics[name] for name in _LATENCIES} for length, metrics in found.items()}}


def _length_of(point: Point) -> str:
    return str(point.load["input_length"])


def _verdict(points: Sequence[Point]) -> str:
    found = {_length_of(point): point.metrics() for point in points}
    failed = sum(metrics["num_failed"] for metrics in found.values())
    told = [
        f"{length} tokens of prompt: first token after {_ms(metrics['ttft_s'])}, then {_ms(metrics['tpot_s'])} a token"
        for length, metrics in found.items()
    ]
    return "One stream at a time, medians. " + "; ".join(told) + (f". {failed} requests FAILED." if failed else ".")


def _show(result: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for reason in result["invalid_reasons"]:
        console.print(f"INVALID: {reason}", style="bold red")
    table = Table("prompt", "TTFT p50", "p90", "TPOT p50", "p90", "E2E p50", "requests", "MBU", title="Single-stream latency")
    by_length = result["metrics"]["by_input_len"]
    for (length, metrics), entry in zip(by_length.items(), result["runs"], strict=True):
        cells = [
            _ms(metrics[name], figure)
            for name, figure in (("ttft_s", "p50"), ("ttft_s", "p90"), ("tpot_s", "p50"), ("tpot_s", "p90"), ("e2e_s", "p50"))
        ]
        share = (entry.get("efficiency") or {}).get("mbu")
        table.add_row(length, *cells, str(metrics["e2e_s"]["num_samples"]), "" if share is None else f"{share:.0%}")
    console.print(table)
    console.print(result["verdict"])


def _ms(figures: Mapping[str, Any], figure: str = "p50") -> str:
    value = figures[figure]
    return f"too few ({figures['num_samples']})" if value is None else f"{value * 1000:.1f} ms"
