"""`tokenport bench throughput`: load on a server, and what came of it. Target, limits, warm-up, then one measured run after another: one
load with its repeats, a sweep, or a search for the highest rate that keeps limits; at the end one document, a table, a page."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.commands.carrying_out import Session
from benchmarks.commands.common import INTERRUPTED_EXIT_CODE, Stop, add_result_options, add_target_options
from benchmarks.commands.finish import finish
from benchmarks.commands.opened import Opened, opened
from benchmarks.commands.served import split_words
from benchmarks.commands.throughput_document import make_document
from benchmarks.load.build import LoadOptions
from benchmarks.load.options import add_load_options, load_options
from benchmarks.machine import limits
from benchmarks.measuring.cost import price_of
from benchmarks.measuring.search import search_rate
from benchmarks.measuring.slo import Slo, parse_slo
from benchmarks.report import terminal
from benchmarks.session import Point, pooled
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser

_DESCRIPTION = """\
Puts load on a server and measures output tokens a second, requests a second, TTFT, TPOT, ITL and E2E latency, from the time at which each
request was due. A run that the client limited is INVALID and says why (exit code 3). Ctrl-C ends it and keeps what was measured.

  tokenport bench throughput http://127.0.0.1:8080 --concurrency 32 --num-requests 320 --out run.json --html run.html
  tokenport bench throughput --serve MODEL --sweep concurrency=1,4,16,64 -- --quantization int8
  tokenport bench throughput URL --rate 4 --duration 2m --slo ttft=500ms,tpot=50ms
  tokenport bench throughput URL --find-slo --slo mlperf-llama3.1-8b-server --duration 1m
"""
_SEARCH_TOLERANCE = 0.1
_DEFAULT_SHARE = 0.99
_SWEPT = {"concurrency": int, "rate": float}


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep, print. Returns the exit code."""
    own, server_words = split_words(words)
    options = _parser().parse_args(own)
    slo, price, sweep = _slo(options), price_of(options.instance, options.price_per_hour), _sweep(options)
    with opened(options, server_words, environ) as target, Stop() as stop:
        load = load_options(
            options,
            prompt_form=target.prompt_form,
            max_model_len=target.max_model_len,
            rates_follow=options.find_slo or (sweep is not None and sweep[0] == "rate"),
        )
        ceilings = limits.measure(environ=environ) if _wants_limits(options, target) else None
        session = Session(target, slo, stop.event, options.processes, options.repeats)
        session.warm_up(load, options.warmup)
        if options.find_slo and slo is not None:
            points = list(_searched(session, load, slo, options.rate))
        else:
            points = [point for one in _swept(load, sweep) for point in session.repeated(one)]
        ledger = target.ledger()
    result = make_document(points, words=words, options=options, target=target, ceilings=ceilings, ledger=ledger, price=price)
    code = finish(result, options)
    terminal.show(result)
    return INTERRUPTED_EXIT_CODE if stop.event.is_set() else code


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="tokenport bench throughput", description=_DESCRIPTION)
    add_target_options(parser)
    add_load_options(parser)
    group = parser.add_argument_group("what is measured")
    group.add_argument("--sweep", metavar="NAME=LIST", help="one run for each value: concurrency=1,2,4,8 or rate=0.5,1,2")
    group.add_argument(
        "--repeats", type=_count, default=1, metavar="N", help="each run so often, with other prompts: gives intervals (default: 1)"
    )
    group.add_argument(
        "--warmup", type=int, metavar="N", help="requests before, with prompts of their own (default: two a place, at least four)"
    )
    group.add_argument(
        "--slo", metavar="LIMITS", help="goodput: ttft=500ms,tpot=30ms,e2e=5s, any of them, or a preset like mlperf-llama3.1-8b-server"
    )
    group.add_argument(
        "--slo-share", type=float, default=_DEFAULT_SHARE, metavar="SHARE", help="of all requests, failed ones too, that must keep them"
    )
    group.add_argument(
        "--find-slo", action="store_true", help="search for the highest rate that keeps --slo; --rate is where to begin (default: 1)"
    )
    group.add_argument("--processes", type=_count, metavar="N", help="client processes (default: by the load)")
    group.add_argument(
        "--limits",
        action=argparse.BooleanOptionalAction,
        help="measure the machine's bandwidth and arithmetic first, for MBU and MFU: up to some minutes (default: with --serve)",
    )
    group.add_argument(
        "--model-config", type=Path, metavar="FILE", help="the model's config.json, for MBU and MFU (default: where /v1/models says)"
    )
    group.add_argument("--price-per-hour", type=float, metavar="USD", help="for dollars per million tokens")
    group.add_argument(
        "--instance", metavar="NAME", help="take the price of this SageMaker instance from the dated table that comes with this"
    )
    add_result_options(parser)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1")
    return int(text)


def _slo(options: argparse.Namespace) -> Slo | None:
    if options.slo is None:
        if options.find_slo or options.slo_share != _DEFAULT_SHARE:
            raise BenchmarkError("--find-slo and --slo-share need limits: --slo ttft=500ms,tpot=30ms")
        return None
    return parse_slo(options.slo, options.slo_share)


def _sweep(options: argparse.Namespace) -> tuple[str, list[float]] | None:
    """The name and values of `--sweep`; it must not say what another option says too."""
    if options.find_slo and any((options.sweep, options.stages, options.trace, options.concurrency)):
        raise BenchmarkError("--find-slo searches over rates: leave --sweep, --stages, --trace and --concurrency away")
    if options.sweep is None:
        return None
    name, _, values = options.sweep.partition("=")
    if name not in _SWEPT:
        raise BenchmarkError(f"--sweep {options.sweep!r}: write concurrency=1,2,4 or rate=0.5,1,2")
    if getattr(options, name) is not None or options.stages or options.trace:
        raise BenchmarkError(f"--sweep {options.sweep!r}: leave --{name}, --stages and --trace away")
    try:
        numbers = [_SWEPT[name](value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise BenchmarkError(f"--sweep {options.sweep!r}: the values of {name} are numbers above 0 with commas between")
    return name, numbers


def _swept(load: LoadOptions, sweep: tuple[str, list[float]] | None) -> Iterator[LoadOptions]:
    if sweep is None:
        yield load
        return
    name, values = sweep
    for value in values:
        yield dataclasses.replace(load, rate=value) if name == "rate" else dataclasses.replace(load, concurrency=int(value))


def _searched(session: Session, load: LoadOptions, slo: Slo, start: str | None) -> Iterator[Point]:
    """The points of a search, each as it is measured."""
    measured: list[Point] = []

    def keeps(rate: float) -> bool:
        points = session.repeated(dataclasses.replace(load, rate=rate))
        measured.extend(points)
        goodput = pooled(points)["goodput"] if points else None
        return goodput is not None and goodput["share"] is not None and goodput["share"] >= slo.share

    for _rate, _is_kept in search_rate(keeps, float(start or 1.0), _SEARCH_TOLERANCE):
        yield from measured
        measured.clear()
        if session.is_stopped:
            return


def _wants_limits(options: argparse.Namespace, target: Opened) -> bool:
    if options.limits and not target.is_local:
        raise BenchmarkError("--limits measures this machine, and the server is on another: run it there")
    return bool(options.serve) if options.limits is None else bool(options.limits)
