"""`tokenport plan MODEL`: whether it fits, on what, with how long a context, for how many, how fast. Exit code 0 if it fits, 1 if not."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from serving.errors import PlanError
from serving.planner.commands.hub import fetch
from serving.planner.commands.plan_options import num_gpus_of, parser, request_of
from serving.planner.commands.ranking import run_ranking
from serving.planner.commands.speed import bare_machine, speed_of
from serving.planner.commands.target import has_target
from serving.planner.hardware import Instance
from serving.planner.instances import Hardware, find_gpu, find_instance, load_hardware
from serving.planner.memory.fit import make_plan
from serving.planner.memory.plan_text import plan_text
from serving.planner.model import read_model


def run(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Print the plan, as a table or as JSON; fits or not, on stdout.

    Raises:
        PlanError: the model cannot be read, or a value is wrong.
    """
    options = parser().namespace(words)
    request = request_of(options)
    if options.gpus and not options.gpu:
        raise PlanError(f"--gpus {options.gpus}: says how many of --gpu there are; give --gpu too, or --instance without it")
    model = read_model(options.model, fetch)
    if not options.gpu and (has_target(options) or not options.instance):
        return run_ranking(options, model, request)
    hardware, assumed = load_hardware(options.hardware), list[str]()
    machine = _machine(options, hardware, assumed)
    plan = make_plan(model, request, machine.gpu, machine.num_gpus)
    speed = speed_of(options, model, plan, machine, hardware, assumed)
    plan = replace(plan, assumed=(*plan.assumed, *assumed))
    if options.json:
        print(json.dumps(plan.to_json() | speed.to_json(), indent=1))
    else:
        print(plan_text(plan, model, machine.gpu) + speed.text(), end="")
    return 0 if plan.fits and speed.keeps_target else 1


def _machine(options: argparse.Namespace, hardware: Hardware, assumed: list[str]) -> Instance:
    """The one that was named, or that many GPUs of the kind that was."""
    if options.gpu:
        return bare_machine(find_gpu(options.gpu, hardware), num_gpus_of(options), hardware, assumed)
    instance = find_instance(options.instance, hardware)
    if instance.unsupported is not None:
        raise PlanError(f"--instance {instance.name}: Tokenport does not run there: {instance.unsupported}")
    return instance
