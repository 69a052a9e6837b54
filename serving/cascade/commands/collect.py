"""`tokenport cascade collect QUESTIONS`: ask every tier of a running server, grade, and write the outcome file that `fit` reads."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from serving.cascade.commands import words as kinds
from serving.cascade.fitting.collect import Collector
from serving.errors import CascadeError
from serving.planner.commands.one_line_parser import OneLineParser
from serving.questions import read_questions


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command. Raises `TokenportError`."""
    options = _parser().parse_args(words)
    if len(options.tiers) < 2 or len(set(options.tiers)) < len(options.tiers):
        raise CascadeError(f"--tiers {','.join(options.tiers)}: name two tiers or more, each once, from small to large")
    collector = Collector(
        url=options.url.rstrip("/"),
        headers=_headers(options.api_key_env, environ),
        tiers=options.tiers,
        hold_tokens=options.hold_tokens,
        sampling=options.sampling,
        concurrency=options.concurrency,
        timeout_s=options.timeout,
    )
    questions = read_questions(options.questions)
    # Tried before anything is asked: answers that cannot be kept would be paid for in vain.
    _write(options.out, "a", [])
    lines, left_out = asyncio.run(collector.collect(questions))
    _write(options.out, "w", lines)
    print(f"{len(lines)} of {len(questions)} questions answered by {', '.join(options.tiers)}; written: {options.out}")
    for tier in options.tiers:
        outcomes = [line["outcomes"][tier] for line in lines]
        means = (sum(outcome[name] for outcome in outcomes) / len(outcomes) for name in ("quality", "cost"))
        print("{}: {:.1%} right, {:.3g} USD an answer".format(tier, *means))
    if left_out:
        print(f"tokenport cascade collect: {len(left_out)} questions left out; the first: {left_out[0]}", file=sys.stderr)
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="tokenport cascade collect",
        description="Ask each tier of a server with a cascade every question of a file (JSON lines of id, messages, answer: the one right\n"
        "text) and write what came of it: quality, cost, and signals of the first tokens.",
    )
    parser.add_argument("questions", metavar="QUESTIONS", type=Path)
    parser.add_argument("--url", required=True, help="the server: http://host:port")
    parser.add_argument("--tiers", required=True, type=kinds.names, metavar="SMALL,LARGE", help="their names, from small to large")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the outcome file to write")
    parser.add_argument("--hold-tokens", required=True, type=kinds.count, metavar="N", help="of how many first tokens the signals are")
    sampling = 'fields of every request, as JSON (default: {"temperature": 0})'
    parser.add_argument("--sampling", type=kinds.json_object, default={"temperature": 0}, metavar="JSON", help=sampling)
    parser.add_argument("--concurrency", type=kinds.count, default=8, metavar="N", help="questions at once (default 8)")
    parser.add_argument("--timeout", type=kinds.seconds, default=300.0, metavar="S", help="for one answer (default 300)")
    parser.add_argument("--api-key-env", metavar="NAME", help="the environment variable that has the server's key")
    return parser


def _write(path: Path, mode: Literal["a", "w"], lines: Sequence[Mapping[str, Any]]) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    except OSError as error:
        raise CascadeError(f"--out {path}: cannot be written: {error.strerror}") from error


def _headers(variable: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    if variable is None:
        return {}
    if not environ.get(variable):
        raise CascadeError(f"--api-key-env {variable}: no such variable in the environment, or it is empty")
    return {"Authorization": f"Bearer {environ[variable]}"}
