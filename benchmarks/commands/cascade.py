"""`tokenport bench cascade`: a server's cascade on questions that can be graded, beside each of its tiers alone."""

import argparse
import asyncio
import dataclasses
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.client.questions import Answered, Asker
from benchmarks.commands.common import INTERRUPTED_EXIT_CODE, add_key_option, add_result_options, api_headers
from benchmarks.commands.finish import finish
from benchmarks.machine.facts import busyness, machine
from benchmarks.machine.servers import metrics_text
from benchmarks.measuring.cascade import DEFINITIONS, deciding, summary
from benchmarks.report import document
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser
from serving.questions import Question, read_questions

_AUTO = "auto"
_TARGET_S = 0.005
"""What a decision may take at its 99th percentile, the look-ahead apart."""
_DESCRIPTION = """\
Asks each tier by its name, then the cascade, all questions of a file: JSON lines of id, messages and answer, the one right text. Prints
quality and cost side by side, who answered, and what holding drafts and deciding took.

  tokenport bench cascade http://127.0.0.1:8080 --questions held-out.jsonl --tiers small,large --out cascade.json
"""


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep, print. Returns the exit code."""
    options = _parser().parse_args(words)
    _refuse_wrong(options)
    questions = read_questions(options.questions)
    facts = {**machine(), **busyness()}
    headers = api_headers(options.api_key, environ)
    asker = Asker(options.url.rstrip("/"), headers, options.concurrency, options.max_tokens, options.timeout)
    # A server that is not there, or does not tell, is found out before hours of questions.
    metrics_text(asker.url, headers)
    try:
        answered = {model: asyncio.run(asker.ask_all(questions, model)) for model in options.tiers}
        before = metrics_text(asker.url, headers)
        answered[_AUTO] = asyncio.run(asker.ask_all(questions, _AUTO))
    except KeyboardInterrupt:
        print("tokenport bench cascade: stopped; nothing is kept, since the models would not have been asked the same", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    took = deciding(before, metrics_text(asker.url, headers))
    result = _document(words, options, facts, answered, took, questions)
    code = finish(result, options)
    _show(result)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="tokenport bench cascade",
        description=_DESCRIPTION,
    )
    parser.add_argument("url", help="a server with a cascade: http://host:port")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="JSON lines of id, messages, answer")
    parser.add_argument("--tiers", type=_names, required=True, metavar="NAME,NAME", help="the tiers' names, from small to large")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="questions at once (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="of an answer (default: what the server allows)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="for one answer (default: %(default)s)")
    add_key_option(parser)
    add_result_options(parser)
    return parser


def _names(word: str) -> list[str]:
    return [name.strip() for name in word.split(",")]


def _refuse_wrong(options: argparse.Namespace) -> None:
    tiers = options.tiers
    if len(tiers) < 2 or not all(tiers) or len(set(tiers)) < len(tiers) or _AUTO in tiers:
        raise BenchmarkError(
            f"--tiers {','.join(tiers)!r}: name the tiers from small to large, each once and without {_AUTO}, like small,large"
        )
    for name in ("concurrency", "max_tokens", "timeout"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise BenchmarkError(f"--{name.replace('_', '-')} {value}: give a number above 0")


def _document(
    words: Sequence[str],
    options: argparse.Namespace,
    facts: Mapping[str, Any],
    answered: Mapping[str, Sequence[Answered]],
    took: Mapping[str, float | None] | None,
    questions: Sequence[Question],
) -> dict[str, Any]:
    last = options.tiers[-1]
    by_model = {model: summary(answers, last) for model, answers in answered.items()}
    failures = [f"{model}: {one.identifier}: {one.error}" for model, answers in answered.items() for one in answers if one.error]
    return document.assemble(
        "cascade",
        command=shlex.join(["tokenport", "bench", "cascade", *words]),
        settings={name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        target={"url": options.url, "tiers": options.tiers},
        machine=facts,
        versions=facts["packages"],
        definitions=dict(DEFINITIONS),
        metrics={"num_questions": len(questions), "by_model": by_model, "deciding_s": took},
        answers=[dataclasses.asdict(one) for answers in answered.values() for one in answers],
        invalid_reasons=[f"{len(failures)} answers failed; the first: {failures[0]}"] if failures else [],
        in_words=_verdict(by_model, last, took),
    )


def _verdict(by_model: Mapping[str, Mapping[str, Any]], last: str, took: Mapping[str, float | None] | None) -> str:
    auto, large = by_model[_AUTO], by_model[last]
    told = f"{auto['quality']:.1%} right, of the largest tier's {large['quality']:.1%}; the largest answered {_share(auto['share_large'])}"
    if auto["cost_usd"] is not None and large["cost_usd"]:
        told += f", at {auto['cost_usd'] / large['cost_usd']:.2f} of its cost"
    if took is None:
        return f"{told}. Nothing was decided."
    within = took["p99"] is not None and took["p99"] <= _TARGET_S
    bound = "more than the histogram tells" if took["p99"] is None else f"at most {took['p99'] * 1000:g} ms"
    return f"{told}. A decision took {bound} at p99, {'within' if within else 'over'} the {_TARGET_S * 1000:g} ms it may."


def _share(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def _show(result: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for reason in result["invalid_reasons"]:
        console.print(f"INVALID: {reason}", style="bold red")
    table = Table("model", "right", "cost, USD", "by the largest", "TTFT p50", "E2E p50", "held p50", title="The cascade beside its tiers")
    for model, metrics in result["metrics"]["by_model"].items():
        cost = "not told" if metrics["cost_usd"] is None else f"{metrics['cost_usd']:.3g}"
        times = [_ms(metrics[name]["p50"]) for name in ("ttft_s", "e2e_s", "hold_s")]
        table.add_row(model, f"{metrics['quality']:.1%}", cost, _share(metrics["share_large"]), *times)
    console.print(table)
    console.print(result["verdict"])


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"
