"""`tokenport bench compare`: results against the first of them; with --paired it measures them first, in turn."""

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands.common import INVALID_EXIT_CODE
from benchmarks.commands.paired import as_process, measure, sides_of
from benchmarks.report import comparison_terminal
from benchmarks.report.comparison import Comparison, Side, compare
from benchmarks.report.comparison_page import comparison_page
from benchmarks.report.conditions import Condition, failed, parse_condition
from benchmarks.report.document import keep_text, load
from benchmarks.report.figures import ALIASES
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser

_FAILED_EXIT_CODE = 1
_DESCRIPTION = (
    "Each metric of the second and further results against the first: difference, 95 % interval, and whether it is more than noise."
)
_MORE = f"""\
intervals:
  rounds measured in turn (--paired)   Student's t over the differences within rounds
  three or more repeats a side         Welch's t over the repeats
  one run a side                       latencies: bootstrap over requests; rates: blocks of the steady window
  The output says which was used. One run a side tells nothing of how two runs of the same server differ.

--fail-if METRIC OP NUMBER[%|ms|s]:
  the difference from the first result, in percent of it or in the metric's unit: "tok_s < -5%", "ttft_p99 > 20ms". It fails where the
  difference is beyond the limit and beyond noise; with --strict beyond the limit is enough. METRIC is one of
{textwrap.fill(", ".join(ALIASES), 130, initial_indent="  ", subsequent_indent="  ")}
  or a name as in the result file (ttft_s.p99); for results of other commands their own names (ready_s.mean).

examples:
  tokenport bench compare before.json after.json --fail-if "tok_s < -5%" --fail-if "ttft_p99 > 10%"
  tokenport bench compare --paired --rounds 5 --out-dir rounds -- \\
      "throughput --url http://a:8080 --concurrency 8" "throughput --url http://b:8080 --concurrency 8"
  tokenport bench compare rounds            the same rounds again

exit code: 0, 1 if a --fail-if holds, 2 if there is nothing to compare or the command line is wrong, 3 if a run is invalid
"""


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command; see its --help."""
    options = _parser().parse_intermixed_args(list(words))
    sides = sides_from(_files(options, environ))
    comparisons = [compare(sides[0], side) for side in sides[1:]]
    conditions = _conditions(options.fail_if, comparisons)
    failures = failed(conditions, comparisons, strict=options.strict)
    _keep(options, comparisons, failures)
    comparison_terminal.show(comparisons, failures)
    if any(not document["valid"] for side in sides for document in side.documents):
        return INVALID_EXIT_CODE
    return _FAILED_EXIT_CODE if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="tokenport bench compare", description=_DESCRIPTION, epilog=_MORE)
    parser.add_argument("results", nargs="*", metavar="FILE", help="results, or a folder of paired ones; with --paired: commands in quotes")
    parser.add_argument("--fail-if", action="append", default=[], metavar="CONDITION", help="exit with 1 if it holds; may be given again")
    parser.add_argument("--strict", action="store_true", help="--fail-if needs no difference beyond noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the comparison as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page that needs nothing but a browser")
    paired = parser.add_argument_group("measuring in turn")
    paired.add_argument("--paired", action="store_true", help="run the commands first, each once a round")
    paired.add_argument("--rounds", type=int, default=5, metavar="N", help="how often (default: 5; at least 2)")
    paired.add_argument("--order", choices=("abab", "abba"), default="abab", help="abba turns every other round: a drift then cancels out")
    paired.add_argument("--out-dir", type=Path, metavar="DIR", help="a new folder for the results of all rounds; needed with --paired")
    paired.add_argument("--round-timeout-s", type=float, default=3600.0, metavar="S", help="for each command (default: 3600)")
    return parser


def _files(options: argparse.Namespace, environ: Mapping[str, str]) -> list[Path]:
    """What is compared; measured first where that is asked for."""
    if options.paired:
        if options.out_dir is None:
            raise BenchmarkError("--paired needs --out-dir DIR, a new folder for the results of all rounds")
        if options.rounds < 2:
            raise BenchmarkError(f"--rounds {options.rounds}: two or more are needed to tell noise")
        arguments = {"order": options.order, "timeout_s": options.round_timeout_s, "run_one": as_process(environ)}
        return measure(sides_of(options.results), options.rounds, options.out_dir, **arguments)
    if options.out_dir is not None:
        raise BenchmarkError("--out-dir goes with --paired")
    found: list[Path] = []
    for path in map(Path, options.results):
        found += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if len(found) < 2:
        raise BenchmarkError("compare needs two results or more: compare A.json B.json, or a folder of paired results")
    return found


def sides_from(files: Sequence[Path]) -> list[Side]:
    """A side a file; files of one paired run are put together by their side, whole rounds only.

    Raises:
        BenchmarkError: a file is no result, or no round is whole.
    """
    documents = [load(path) for path in files]
    pairs = [document.get("pair") for document in documents]
    if len(files) == 2 or None in pairs or len({pair["id"] for pair in pairs if pair}) != 1:
        return [Side(name, [document]) for name, document in zip(_names(files), documents, strict=True)]
    by_side: dict[str, dict[int, Any]] = {}
    for document in documents:
        by_side.setdefault(document["pair"]["position"], {})[document["pair"]["round"]] = document
    whole = sorted(set.intersection(*(set(rounds) for rounds in by_side.values())))
    if len(by_side) < 2 or len(whole) < 2:
        raise BenchmarkError(f"{files[0].parent}: two whole rounds of two sides are needed, there are {len(whole)} of {len(by_side)}")
    return [Side(f"{letter} ({len(whole)} rounds)", [by_side[letter][number] for number in whole]) for letter in sorted(by_side)]


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names, with their folders where those alone tell them apart."""
    names = [path.name for path in files]
    return names if len(set(names)) == len(names) else [str(path) for path in files]


def _conditions(texts: Sequence[str], comparisons: Sequence[Comparison]) -> list[Condition]:
    known = dict.fromkeys(
        difference.name for comparison in comparisons for differences in comparison.loads.values() for difference in differences
    )
    return [parse_condition(text, list(known)) for text in texts]


def _keep(options: argparse.Namespace, comparisons: Sequence[Comparison], failures: Sequence[str]) -> None:
    if options.json is not None:
        content = {"comparisons": [comparison.to_json() for comparison in comparisons], "failed": list(failures)}
        keep_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", options.json)
    if options.html is not None:
        keep_text(comparison_page(comparisons, failures), options.html)
