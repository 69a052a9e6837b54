"""`tokenport plan MODEL`: whether it fits, on what, with how long a context, for how many. Exit code 0 if it fits, 1 if not."""

import argparse
import json
from collections.abc import Mapping, Sequence

from serving.errors import PlanError
from serving.planner.commands.hub import fetch
from serving.planner.commands.plan_options import num_gpus_of, parser, request_of
from serving.planner.commands.ranking import has_target, run_ranking
from serving.planner.hardware import Gpu
from serving.planner.instances import find_gpu, find_instance, load_hardware
from serving.planner.memory.fit import make_plan
from serving.planner.memory.plan_text import plan_text
from serving.planner.model import read_model


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the plan, as a table or as JSON; fits or not, on stdout.

    Raises:
        PlanError: the model cannot be read, or a value is wrong.
    """
    options = parser().namespace(words)
    request = request_of(options)
    if options.gpus and not options.gpu:
        raise PlanError(f"--gpus {options.gpus}: says how many of --gpu there are; give --gpu too, or --instance without it")
    model = read_model(options.model, fetch)
    if has_target(options) or not (options.instance or options.gpu):
        return run_ranking(options, model, request, environ)
    gpu, num_gpus = _hardware(options)
    plan = make_plan(model, request, gpu, num_gpus)
    print(json.dumps(plan.to_json(), indent=1) if options.json else plan_text(plan, model, gpu), end="\n" if options.json else "")
    return 0 if plan.fits else 1


def _hardware(options: argparse.Namespace) -> tuple[Gpu, int]:
    """The GPU, and how many of it there are."""
    hardware = load_hardware(options.hardware)
    if options.gpu:
        return find_gpu(options.gpu, hardware), num_gpus_of(options)
    instance = find_instance(options.instance, hardware)
    if instance.unsupported is not None:
        raise PlanError(f"--instance {instance.name}: Tokenport does not run there: {instance.unsupported}")
    return instance.gpu, instance.num_gpus
