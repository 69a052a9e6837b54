"""`tokenport plan task`: the smallest model that is good enough at a task, by an evaluation of the user's own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from serving.errors import PlanError
from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.cost.quantities import number, unknown
from serving.planner.cost.task_file import TASKS, read_task_file
from serving.planner.cost.task_quality import Judged, describe, percent, pick

_DESCRIPTION = """\
Picks the smallest of the models in your evaluation whose mean score is surely at least --at-least. It does not guess: without an evaluation
it picks nothing.

  tokenport plan task classification --quality results.json --at-least 0.9

  results.json: {"task": "classification", "metric": "accuracy", "models": [
    {"name": "small", "parameters": 1.2e9, "scores": [1, 0, 1, 1]},
    {"name": "large", "parameters": 8e9, "mean": 0.94, "num_examples": 500}]}
  ordered by usd_per_million_tokens, else bytes, else parameters
"""
_DEFAULTS = {"at_least": ("--at-least", "0.9"), "confidence": ("--confidence", "0.95")}
_UNITS = {"usd_per_million_tokens": "$/M tokens", "bytes": "bytes", "parameters": "parameters"}


def run(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Judge and print.

    Raises:
        PlanError: there is no evaluation, it is malformed or for another task, or no model is good enough; in one line.
    """
    parser = OneLineParser(prog="tokenport plan task", description=_DESCRIPTION)
    parser.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--quality", metavar="FILE", help="your evaluation of the models at this task, as JSON")
    parser.add_argument("--at-least", metavar="X", help="the mean score that must be held (default: 0.9)")
    parser.add_argument("--confidence", metavar="X", help="that the model picked really does (default: 0.95)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    given = parser.parse(words)
    task = given["task"]
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if "quality" not in given:
        raise PlanError(f"task {task}: give --quality FILE with your own evaluation; which model is good enough is not known without one")
    at_least, confidence = (_share(option, given.get(name, default)) for name, (option, default) in _DEFAULTS.items())
    assumed = [f"{option} {default}" for name, (option, default) in _DEFAULTS.items() if name not in given]
    metric, order, candidates = read_task_file(Path(given["quality"]), task)
    picked, smaller = pick(candidates, at_least, confidence)
    if "json" in given:
        document = {"task": task, "metric": metric, "at_least": at_least, "confidence": confidence, "ordered_by": order, "assumed": assumed}
        print(json.dumps({**document, "picked": asdict(picked), "not_picked": [asdict(one) for one in smaller]}, indent=2))
        return 0
    print(
        f"{picked.candidate.name}: the smallest of {len(candidates)} that holds {metric} {at_least:g} at {percent(confidence)} confidence"
    )
    for one in (*smaller, picked):
        print(f"  {_line(one, order, at_least)}")
    if assumed:
        print(f"Assumed: {', '.join(assumed)}")
    return 0


def _share(option: str, text: str) -> float:
    value = number(option, text)
    if value >= 1:
        raise PlanError(f"{option} {text}: write a number between 0 and 1")
    return value


def _line(judged: Judged, order: str, at_least: float) -> str:
    told = f"{judged.candidate.name}, {judged.candidate.size:,.15g} {_UNITS[order]}: {describe(judged)}"
    if judged.holds:
        return f"{told}: picked"
    why = "its mean is below" if judged.candidate.mean < at_least else "too few examples to be sure of"
    return f"{told}: not picked, {why} {at_least:g}"
