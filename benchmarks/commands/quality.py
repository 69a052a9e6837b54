"""`tokenport bench quality`: what ways to quantise cost, on one model: perplexity and KL divergence against its 16-bit checkpoint."""

import argparse
import json
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.commands.common import INTERRUPTED_EXIT_CODE, add_result_options
from benchmarks.commands.finish import finish
from benchmarks.machine.facts import busyness, machine
from benchmarks.quality import VARIANTS, loaded, prepared
from benchmarks.report import document
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser

DEFINITIONS: Mapping[str, str] = {
    "perplexity": "exp of the mean negative log-probability of each token of a text that comes with Tokenport, given those before it.",
    "perplexity_ratio": "The variant's perplexity by that of the same checkpoint in 16 bit, on the same text with the same software.",
    "kl_mean": "Kullback-Leibler divergence of the variant's distribution of the next token from the 16-bit one's, in nats, mean over the "
    "text's tokens; kl_p99 and kl_max of the same.",
    "top1_agreement": "Share of the tokens for which both find the same next token the likeliest.",
}
_DEFAULT = "int8 while loading"
_DESCRIPTION = f"""\
Measures a 16-bit checkpoint against itself in other precisions. `... prepared` variants are written with `tokenport prepare ... --quality`,
the others the engine loads so itself.

  tokenport bench quality MODEL_FOLDER --out quality.json
  tokenport bench quality MODEL_FOLDER --variants 'int8 prepared,int8 prepared+smoothed' --engine '{{"dtype": "float32"}}'

variants: {"; ".join(name.replace(", ", "+") for name in VARIANTS)}
"""


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep, print. Returns 0; 3 where a variant could not be measured."""
    options = _parser().parse_args(words)
    if not (options.model / "config.json").is_file():
        raise BenchmarkError(f"{options.model}: give a folder with a 16-bit checkpoint")
    variants = _variants(options.variants, options.engine)
    facts = {**machine(), **busyness()}
    runs: list[dict[str, Any]] = []
    is_interrupted = False
    try:
        for name, how in variants.items():
            runs.append(_measured(len(runs), name, how, options.model, environ))
    except KeyboardInterrupt:
        is_interrupted = True
    if not runs:
        raise BenchmarkError("stopped before anything was measured")
    result = _document(words, options, facts, runs)
    code = finish(result, options)
    _show(result)
    return INTERRUPTED_EXIT_CODE if is_interrupted else code


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="tokenport bench quality", description=_DESCRIPTION)
    parser.add_argument("model", type=Path, help="a folder with a 16-bit checkpoint")
    parser.add_argument("--variants", metavar="NAME,NAME", help=f"which, or all (default: {_DEFAULT}, or none with --engine)")
    parser.add_argument("--engine", metavar="JSON", action="append", default=[], help="arguments that the engine loads it with; repeatable")
    add_result_options(parser)
    return parser


def _variants(names: str | None, engines: Sequence[str]) -> dict[str, list[str] | dict[str, str]]:
    """What is asked for, in order.

    Raises:
        BenchmarkError: a name is unknown, or the engine's arguments are no JSON object.
    """
    known = {name.replace(", ", "+"): how for name, how in VARIANTS.items()}
    asked = known.keys() if names == "all" else (names.split(",") if names else [] if engines else [_DEFAULT])
    found: dict[str, list[str] | dict[str, str]] = {}
    for name in (word.strip() for word in asked):
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise BenchmarkError(f"--variants {name!r} is unknown; the nearest is {near!r}, and `all` is all of them")
        found[name] = known[name]
    for text in engines:
        try:
            how = json.loads(text)
        except ValueError:
            how = None
        if not isinstance(how, dict):
            raise BenchmarkError(f'--engine {text!r}: write a JSON object, like {{"dtype": "float32"}}')
        found[f"engine {text}"] = how
    return found


def _measured(index: int, name: str, how: list[str] | dict[str, str], model: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """One variant as an entry of the document's "runs"; one that fails has said why on standard error, and the others go on."""
    reasons: list[str] = []
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tokenport-") as work:
        try:
            row = prepared(str(model), how, Path(work), environ) if isinstance(how, list) else loaded(str(model), how, environ)
        except subprocess.CalledProcessError as error:
            reasons.append(f"{name}: could not be measured, exit status {error.returncode}")
        except subprocess.TimeoutExpired as error:
            reasons.append(f"{name}: not done after {error.timeout:g} s")
    quality = row.pop("quality", None)
    metrics = {} if quality is None else {**quality, "perplexity_ratio": quality["perplexity"] / quality["perplexity_reference"]}
    if "weights_bytes" in row:
        metrics["weights_bytes"] = row.pop("weights_bytes")
    load = {"kind": "variant", "variant": name, "how": how}
    return {
        "index": index,
        "label": name,
        "load": load,
        "repeat": 0,
        "valid": not reasons,
        "invalid_reasons": reasons,
        "metrics": metrics,
        **row,
    }


def _document(
    words: Sequence[str], options: argparse.Namespace, facts: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    measured = {entry["label"]: entry["metrics"] for entry in runs if entry["valid"]}
    told = [
        f"{name}: perplexity {metrics['perplexity']:.2f} instead of {metrics['perplexity_reference']:.2f}, mean KL {metrics['kl_mean']:.4f}"
        for name, metrics in measured.items()
    ]
    return document.assemble(
        "quality",
        command=shlex.join(["tokenport", "bench", "quality", *words]),
        settings={name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        target={"model": options.model.name},
        machine=facts,
        versions=facts["packages"],
        definitions=dict(DEFINITIONS),
        metrics={"by_variant": measured},
        runs=runs,
        invalid_reasons=[reason for entry in runs for reason in entry["invalid_reasons"]],
        in_words="; ".join(told) + "." if told else "Nothing could be measured.",
    )


def _show(result: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for reason in result["invalid_reasons"]:
        console.print(f"INVALID: {reason}", style="bold red")
    table = Table("", "perplexity", "of 16 bit", "ratio", "KL mean", "KL p99", "same first", title="Quality against the 16-bit checkpoint")
    for name, metrics in result["metrics"]["by_variant"].items():
        figures = [f"{metrics[key]:.3f}" for key in ("perplexity", "perplexity_reference", "perplexity_ratio")]
        figures += [f"{metrics[key]:.4f}" for key in ("kl_mean", "kl_p99")]
        table.add_row(name, *figures, f"{metrics['top1_agreement']:.1%}")
    console.print(table)
