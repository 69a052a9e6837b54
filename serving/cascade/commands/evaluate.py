"""`tokenport cascade eval FILE --policy POLICY`: what a policy comes to on other outcomes, as a table or as JSON."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.cascade.commands import words as kinds
from serving.cascade.fitting.evaluate import Evaluation, evaluate
from serving.cascade.fitting.lines import Line
from serving.cascade.fitting.outcomes import read_outcomes
from serving.cascade.policy import Policy
from serving.cascade.policy_file import read_policy
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Run the command. Raises `CascadeError`."""
    options = _parser().parse_args(words)
    policy = read_policy(options.policy)
    evaluation = evaluate(policy, read_outcomes(options.outcomes), options.seed)
    warnings = [] if evaluation.is_held_out else [f"{options.outcomes} is what the policy was fitted on: other requests will do worse"]
    for warning in warnings:
        print(f"tokenport cascade eval: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps(_document(evaluation, policy, warnings), indent=1))
    else:
        print("\n".join(_table(evaluation, policy)))
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="tokenport cascade eval",
        description="Evaluate a policy on held-out outcomes, beside what needs no policy. Rejected drafts are paid in full.",
    )
    parser.add_argument("outcomes", metavar="FILE", type=Path, help="outcomes: JSON lines, see tokenport cascade --help")
    parser.add_argument("--policy", required=True, type=Path, metavar="POLICY", help="what `tokenport cascade fit` wrote")
    parser.add_argument("--json", action="store_true", help="print JSON: quality, cost, share_large, target_met, baselines, intervals")
    parser.add_argument("--seed", type=kinds.seed, default=0, metavar="N", help="of the resampling for the intervals (default 0)")
    return parser


def _document(evaluation: Evaluation, policy: Policy, warnings: Sequence[str]) -> dict[str, Any]:
    return {
        **dataclasses.asdict(evaluation.policy),
        "naive": dataclasses.asdict(evaluation.naive),
        "baselines": {name: dataclasses.asdict(line) for name, line in evaluation.baselines.items()},
        "share_needed": dict(evaluation.share_needed),
        "target": evaluation.target,
        "num_requests": evaluation.num_requests,
        "tiers": [*(stage.tier for stage in policy.stages), policy.last_tier],
        "fitted_on": dataclasses.asdict(policy.fitted_on),
        "warnings": list(warnings),
    }


def _table(evaluation: Evaluation, policy: Policy) -> list[str]:
    large = policy.last_tier
    lines = {"policy": evaluation.policy, "naive threshold": evaluation.naive, **evaluation.baselines}
    asked = f"{policy.fitted_on.quality:g} of {large}, at confidence {policy.fitted_on.confidence:g}"
    head = f"{'':<16}{'quality':>9}{'95 % interval':>18}{'of ' + large[:12]:>16}{'to ' + large[:12]:>16}{'cost':>12}{'saving':>9}  target"
    needed = ", ".join(f"{name} {share:.1%}" for name, share in evaluation.share_needed.items())
    return [
        f"{evaluation.num_requests} requests; target: quality {evaluation.target:.4f} ({asked})",
        "",
        head,
        *(_row(name, line) for name, line in lines.items()),
        "",
        f"to {large} for the target on these requests: {needed}",
    ]


def _row(name: str, line: Line) -> str:
    low, high = line.quality_interval
    met = "met" if line.target_met else "missed"
    quality = f"{name:<16}{line.quality:>9.4f}{f'{low:.4f} .. {high:.4f}':>18}{_percent(line.quality_ratio):>16}"
    return f"{quality}{line.share_large:>16.1%}{line.cost:>12.6g}{_percent(line.saving):>9}  {met}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
