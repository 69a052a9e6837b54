"""`tokenport plan MODEL` where the machine is open, or a target is given: which instance, precision and split serve it for the least."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from serving.errors import PlanError
from serving.planner.cost.quantities import count, duration_s, number
from serving.planner.instances import find_instance, load_hardware
from serving.planner.memory.context_limit import default_context
from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.prices import read_prices
from serving.planner.ranking.as_json import ranking_json
from serving.planner.ranking.as_text import ranking_text
from serving.planner.ranking.page import ranking_page
from serving.planner.ranking.ranking import Ranker, Target
from serving.planner.speed.calibration import read_measured
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow

_OUTPUT_SHARE = 4
"""Of the context the part that is output where nothing says how much."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the ranking."""
    group = parser.add_argument_group("which instance, how fast, for how much")
    group.add_argument("--input-tokens", metavar="N", help="of a request; default: what --context leaves")
    group.add_argument("--output-tokens", metavar="N", help="of a request; default: a quarter of --context")
    group.add_argument("--ttft", metavar="TIME", help="the mean time to the first token that is to be kept, such as 2s")
    group.add_argument("--tpot", metavar="TIME", help="the mean time of each further token, such as 100ms")
    group.add_argument("--budget", metavar="USD", help="dollars an hour at most")
    group.add_argument("--calibrate", metavar="FILE", nargs="+", type=Path, default=[], help="results of `tokenport bench throughput`")
    group.add_argument("--prices", metavar="FILE", type=Path, help="prices that `tokenport plan prices` wrote")
    group.add_argument("--hardware", metavar="FILE", type=Path, help="GPUs and machines of your own, YAML or JSON")
    group.add_argument("--html", metavar="FILE", type=Path, help="write one page with memory, latency and cost")


def has_target(options: argparse.Namespace) -> bool:
    """Whether something was asked for that only the ranking answers."""
    names = ("input_tokens", "output_tokens", "ttft", "tpot", "budget", "calibrate", "prices", "html")
    return any(getattr(options, name) for name in names)


def run_ranking(options: argparse.Namespace, model: Model, request: PlanRequest, _environ: Mapping[str, str]) -> int:
    """Rank all instances, or the one of --instance. 0 if one keeps the target, else 1.

    Raises:
        PlanError: an option, or a file that one names, is wrong.
    """
    _refuse_what_is_not_ranked(options, request)
    assumed = list(model.assumed)
    if request.context is None:
        request = replace(request, context=default_context(model.decoder))
        assumed.append(f"--context {request.context}: the model's own")
    target = _target(options, request, assumed)
    prices = read_prices(options.prices) if options.prices else None
    hardware = load_hardware(options.hardware, prices=prices)
    measured = [read_measured(path, hardware.gpus) for path in options.calibrate]
    named = options.instance
    instances = [find_instance(named, hardware)] if named else list(hardware.instances.values())
    ranking = Ranker(model, request, target, published_efficiency(), measured).rank(instances)
    if options.html:
        _write(options.html, ranking_page(ranking, model, request, assumed))
    if options.json:
        print(json.dumps(ranking_json(ranking, model, request, assumed), indent=1))
    else:
        print(ranking_text(ranking, model, request, assumed), end="")
    return 0 if ranking.winners else 1


def _refuse_what_is_not_ranked(options: argparse.Namespace, request: PlanRequest) -> None:
    if options.gpu:
        raise PlanError(f"--gpu {options.gpu}: has no price; rank machines, of your own too: --hardware FILE with price_per_hour")
    if request.pipeline_parallel_size > 1:
        raise PlanError(f"--pipeline-parallel-size {request.pipeline_parallel_size}: there is no estimate of its speed; leave it out here")
    if request.data_parallel_size > 1:
        raise PlanError(f"--data-parallel-size {request.data_parallel_size}: each instance gets as many replicas as it holds; leave it out")


def _target(options: argparse.Namespace, request: PlanRequest, assumed: list[str]) -> Target:
    """What is to be kept. Adds a line to `assumed` for each value that nobody told."""
    context = request.context or 1
    if options.output_tokens:
        output_tokens = count("--output-tokens", options.output_tokens)
    else:
        told = count("--input-tokens", options.input_tokens) if options.input_tokens else 0
        output_tokens = min(max(context // _OUTPUT_SHARE, 1), max(context - told, 1))
        assumed.append(f"--output-tokens {output_tokens}: a quarter of the context, or what the input leaves of it")
    if options.input_tokens:
        input_tokens = count("--input-tokens", options.input_tokens)
    else:
        input_tokens = max(context - output_tokens, 1)
        assumed.append(f"--input-tokens {input_tokens}: what the output leaves of the context")
    if input_tokens + output_tokens > context:
        raise PlanError(f"--input-tokens {input_tokens} and --output-tokens {output_tokens} do not go into --context {context} together")
    return Target(
        flow=Flow(input_tokens, output_tokens, request.concurrency),
        ttft_s=duration_s("--ttft", options.ttft) if options.ttft else None,
        tpot_s=duration_s("--tpot", options.tpot) if options.tpot else None,
        usd_per_hour=number("--budget", options.budget) if options.budget else None,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(f"--html {path}: cannot be written ({error.strerror})") from error
