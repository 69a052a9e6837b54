"""`tokenport cascade fit FILE`: read the outcomes, fit the policy, write it, and say what it came to."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.cascade.commands import words as kinds
from serving.cascade.commands.fit_report import report, warnings
from serving.cascade.fitting.fit import Wish, fit
from serving.cascade.fitting.outcomes import read_outcomes
from serving.cascade.fitting.training import DEFAULT_HOLD_TOKENS, RULES
from serving.cascade.identity import chat_template_hash, model_hash, sampling_hash
from serving.cascade.policy_file import VALID_FOR, write_policy
from serving.errors import CascadeError
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Run the command. Raises `CascadeError`."""
    options = _parser().parse_args(words)
    outcomes = read_outcomes(options.outcomes, options.tiers)
    valid_for = _valid_for(options, outcomes.tiers)
    wish = Wish(options.quality, options.confidence, options.rules, options.hold_tokens, options.seed)
    fitted = fit(outcomes, wish, valid_for)
    write_policy(fitted.policy, options.out)
    print("\n".join((*report(fitted, outcomes), f"written: {options.out}")))
    for warning in warnings(fitted, outcomes, hold_tokens=wish.hold_tokens):
        print(f"tokenport cascade fit: {warning}", file=sys.stderr)
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="tokenport cascade fit",
        description="Fit when each tier may answer, so that the mean quality keeps a share of the last tier's: with a finite-sample bound.",
    )
    parser.add_argument("outcomes", metavar="FILE", type=Path, help="outcomes: JSON lines, see tokenport cascade --help")
    quality = "keep the mean quality at this share of the last tier's"
    parser.add_argument("--quality", required=True, type=kinds.quality, metavar="Q", help=quality)
    confidence = "how sure to be of that: of so many fits of independent outcomes it holds for this share at least"
    parser.add_argument("--confidence", required=True, type=kinds.confidence, metavar="C", help=confidence)
    parser.add_argument("--out", required=True, type=Path, metavar="POLICY", help="the policy file to write (JSON)")
    tiers = "the tiers from small to large, with commas (default: by mean cost, which is then said)"
    parser.add_argument("--tiers", type=kinds.names, metavar="SMALL,LARGE", help=tiers)
    rules = "before: of the request alone; after: also of the tier's first tokens; both; auto: after where a tier has signals, else before"
    parser.add_argument("--rules", choices=RULES, default="auto", help=rules)
    hold = "of how many first tokens the signals are (default: the highest of the signal num_tokens, else "
    parser.add_argument("--hold-tokens", type=kinds.count, metavar="N", help=f"{hold}{DEFAULT_HOLD_TOKENS}, which is then said)")
    parser.add_argument("--seed", type=kinds.seed, default=0, metavar="N", help="which requests train and which calibrate (default 0)")
    group = parser.add_argument_group("what the policy holds for; a server that finds others refuses it")
    model = "hash the model and the chat template in a folder; may be repeated"
    group.add_argument("--model", type=kinds.pair, action="append", default=[], metavar="TIER=FOLDER", help=model)
    sampling = 'what the tier samples with, as JSON: small={"temperature": 0}; may be repeated'
    group.add_argument("--sampling", type=kinds.pair_of_json, action="append", default=[], metavar="TIER=JSON", help=sampling)
    valid = f"a hash from elsewhere: FACT is {', '.join(VALID_FOR)}; may be repeated"
    group.add_argument("--valid-for", type=kinds.pair, action="append", default=[], metavar="TIER.FACT=HASH", help=valid)
    return parser


def _valid_for(options: argparse.Namespace, tiers: Sequence[str]) -> dict[str, str]:
    found: list[tuple[str, str]] = list(options.valid_for)
    for tier, folder in options.model:
        found += [(f"{tier}.model", model_hash(Path(folder))), (f"{tier}.chat_template", chat_template_hash(Path(folder)))]
    found += [(f"{tier}.sampling", sampling_hash(sampling)) for tier, sampling in options.sampling]
    known = [f"{tier}.{fact}" for tier in tiers for fact in VALID_FOR]
    for name, _ in found:
        if name not in known:
            raise CascadeError(f"{name!r} is none of the facts that the policy can be held to: {', '.join(known)}")
        if [each for each, _ in found].count(name) > 1:
            raise CascadeError(f"{name!r} is given twice")
    return dict(found)
