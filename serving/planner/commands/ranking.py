"""`tokenport plan MODEL` where the machine is open, or a target is given: which instance, precision and split serve it for the least."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from serving.errors import PlanError
from serving.planner.commands.target import target_of
from serving.planner.instances import find_instance, load_hardware
from serving.planner.memory.context_limit import default_context
from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.prices import read_prices
from serving.planner.ranking.as_json import ranking_json
from serving.planner.ranking.as_text import ranking_text
from serving.planner.ranking.operation import SPREAD_EXPERTS
from serving.planner.ranking.page import ranking_page
from serving.planner.ranking.ranking import Ranker
from serving.planner.speed.calibration import read_measured
from serving.planner.speed.efficiency import published_efficiency


def run_ranking(options: argparse.Namespace, model: Model, request: PlanRequest) -> int:
    """Rank all instances, or the one of --instance. 0 if one keeps the target, else 1.

    Raises:
        PlanError: an option, or a file that one names, is wrong.
    """
    _refuse_what_is_not_ranked(request)
    assumed = list(model.assumed)
    if request.context is None:
        request = replace(request, context=default_context(model.decoder))
        assumed.append(f"--context {request.context}: the model's own")
    target = target_of(options, request, assumed)
    prices = read_prices(options.prices) if options.prices else None
    hardware = load_hardware(options.hardware, prices=prices)
    measured = [read_measured(path, hardware.gpus) for path in options.calibrate or ()]
    named = options.instance
    instances = [find_instance(named, hardware)] if named else list(hardware.instances.values())
    ranker = Ranker(model, request, target, published_efficiency(), measured)
    ranking = ranker.rank(instances)
    assumed += ranker.estimator.without_effect
    if ranking.first is not None and ranking.first.plan is not None:
        assumed = list(dict.fromkeys([*assumed, *ranking.first.plan.assumed]))
        assumed += [SPREAD_EXPERTS] if model.shape.num_experts and ranking.first.num_replicas > 1 else []
    if options.html:
        _write(options.html, ranking_page(ranking, model, request, assumed))
    if options.json:
        print(json.dumps(ranking_json(ranking, model, request, assumed), indent=1))
    else:
        print(ranking_text(ranking, model, request, assumed), end="")
    return 0 if ranking.winners else 1


def _refuse_what_is_not_ranked(request: PlanRequest) -> None:
    if request.pipeline_parallel_size > 1:
        raise PlanError(f"--pipeline-parallel-size {request.pipeline_parallel_size}: there is no estimate of its speed; leave it out here")
    if request.data_parallel_size > 1:
        raise PlanError(f"--data-parallel-size {request.data_parallel_size}: each instance gets as many replicas as it holds; leave it out")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(f"--html {path}: cannot be written ({error.strerror})") from error
