"""What is to be kept, on the command line of `tokenport plan MODEL`: the load and the limits; and where speeds and prices come from."""

import argparse
from pathlib import Path

from serving.errors import PlanError
from serving.planner.commands.whole_number import whole_number
from serving.planner.cost.quantities import duration_s, number, wrong
from serving.planner.plan import PlanRequest
from serving.planner.ranking.operation import Target
from serving.planner.speed.speed import Flow

_OUTPUT_SHARE = 4
"""Of the context the part that is output where nothing says how much."""
_TARGETS = ("input_tokens", "output_tokens", "ttft", "tpot", "budget", "calibrate", "prices", "html")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of speed and ranking."""
    group = parser.add_argument_group("which instance, how fast, for how much")
    group.add_argument("--input-tokens", metavar="N", help="of a request; default: what --context leaves")
    group.add_argument("--output-tokens", metavar="N", help="of a request; default: a quarter of --context")
    group.add_argument("--ttft", metavar="TIME", help="the mean time to the first token that is to be kept, such as 2s")
    group.add_argument("--tpot", metavar="TIME", help="the mean time of each further token, such as 100ms")
    group.add_argument("--budget", metavar="USD", help="dollars an hour at most")
    calibrated = "results of `tokenport bench throughput`"
    group.add_argument("--calibrate", metavar="FILE", nargs="+", action="extend", type=Path, help=calibrated)
    group.add_argument("--prices", metavar="FILE", type=Path, help="prices that `tokenport plan prices` wrote")
    group.add_argument("--hardware", metavar="FILE", type=Path, help="GPUs and machines of your own, YAML or JSON")
    group.add_argument("--html", metavar="FILE", type=Path, help="write one page with memory, latency and cost")


def has_target(options: argparse.Namespace) -> bool:
    """Whether a load, a limit, or what only a ranking answers was asked for."""
    return any(getattr(options, name) is not None for name in _TARGETS)


def target_of(options: argparse.Namespace, request: PlanRequest, assumed: list[str]) -> Target:
    """What is to be kept with `request`, whose context is settled. Adds a line to `assumed` for each value that nobody told.

    Raises:
        PlanError: a value is wrong, or the tokens do not go into the context.
    """
    context = request.context or 1
    if context < 2:
        raise PlanError(f"--context {context}: a request has a token of input and one of output; 2 or more")
    told_input = whole_number("--input-tokens", options.input_tokens)
    told_output = whole_number("--output-tokens", options.output_tokens)
    output_tokens = told_output or min(max(context // _OUTPUT_SHARE, 1), max(context - (told_input or 0), 1))
    input_tokens = told_input or max(context - output_tokens, 1)
    if told_output is None:
        assumed.append(f"--output-tokens {output_tokens}: a quarter of the context, or what the input leaves of it")
    if told_input is None:
        assumed.append(f"--input-tokens {input_tokens}: what the output leaves of the context")
    if input_tokens + output_tokens > context:
        raise PlanError(f"--input-tokens {input_tokens} and --output-tokens {output_tokens} do not go into --context {context} together")
    return Target(
        flow=Flow(input_tokens, output_tokens, request.concurrency),
        ttft_s=_limit_s("--ttft", options.ttft),
        tpot_s=_limit_s("--tpot", options.tpot),
        usd_per_hour=None if options.budget is None else number("--budget", options.budget),
    )


def _limit_s(option: str, text: str | None) -> float | None:
    limit = None if text is None else duration_s(option, text)
    if limit == 0:
        raise wrong(option, text, "nothing takes no time; write a length of time such as 100ms")
    return limit
