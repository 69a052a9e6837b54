"""The file of `tokenport plan task`: what the user's own evaluation gave each model at one task (its form: docs/planning-cost.md).

A score lies between 0 and 1, and more is better. Models are ordered by `usd_per_million_tokens`, else `bytes`, else `parameters`: the first
of these that all of them have.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.errors import PlanError
from serving.planner.cost.quantities import unknown
from serving.planner.cost.task_quality import Candidate

TASKS = ("classification", "summarisation", "extraction", "reasoning", "code")
_ORDERS = ("usd_per_million_tokens", "bytes", "parameters")
_TOP = ("task", "metric", "models")
_FIELDS = ("name", *_ORDERS, "scores", "mean", "num_examples")


def read_task_file(path: Path, task: str) -> tuple[str, str, list[Candidate]]:
    """The metric, what the models are ordered by, and the models.

    Raises:
        PlanError: the file cannot be read, is for another task, or a field is wrong: names it.
    """
    document, where = _document(path), f"--quality {path}"
    for name in document:
        if name not in _TOP:
            raise unknown(f"{where}: field", name, _TOP)
    if document.get("task") != task:
        raise PlanError(f"{where}: task {document.get('task')!r}: the file is not for {task}")
    metric, models = document.get("metric"), document.get("models")
    if not isinstance(metric, str) or not metric:
        raise PlanError(f"{where}: metric {metric!r}: must be the name of what the scores are")
    if not isinstance(models, list) or not models:
        raise PlanError(f"{where}: models must be a list of at least one model")
    entries = [_check(entry, f"{where}: models[{index}]") for index, entry in enumerate(models)]
    names = [entry["name"] for entry in entries]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PlanError(f"{where}: model {twice!r} is there twice")
    order = next((name for name in _ORDERS if all(name in entry for entry in entries)), None)
    if order is None:
        raise PlanError(f"{where}: what is smaller is not known: give every model the same one of {', '.join(_ORDERS)}")
    return metric, order, [_candidate(entry, order) for entry in entries]


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"--quality {path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise PlanError(f"--quality {path}: must be an object with {', '.join(_TOP)}")
    if document.get("kind") == "quality":
        raise PlanError(
            f"--quality {path}: is a result of `tokenport bench quality`, which compares a model with itself in other precisions, token by "
            "token; give scores of answers to your task"
        )
    return document


def _check(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise PlanError(f"{where}: must be an object with a name")
    where = f"{where} ({entry['name']})"
    for name in entry:
        if name not in _FIELDS:
            raise unknown(f"{where}: field", name, _FIELDS)
    for name in _ORDERS:
        if name in entry and not (_is_number(entry[name]) and entry[name] > 0):
            raise PlanError(f"{where}.{name} {entry[name]!r}: must be a number above 0")
    if ("scores" in entry) == ("mean" in entry):
        raise PlanError(f"{where}: give either scores, or mean and num_examples")
    if "scores" in entry:
        _check_scores(entry, where)
    elif not _is_score(entry["mean"]):
        raise PlanError(f"{where}.mean {entry['mean']!r}: must be a number from 0 to 1")
    elif not (isinstance(number := entry.get("num_examples"), int) and _is_number(number) and number >= 1):
        raise PlanError(f"{where}.num_examples {entry.get('num_examples')!r}: must be a whole number of at least 1")
    return entry


def _check_scores(entry: Mapping[str, Any], where: str) -> None:
    scores = entry["scores"]
    if not isinstance(scores, list) or not scores:
        raise PlanError(f"{where}.scores: must be a list of at least one number from 0 to 1")
    for index, score in enumerate(scores):
        if not _is_score(score):
            raise PlanError(f"{where}.scores[{index}] {score!r}: must be a number from 0 to 1")
    if entry.get("num_examples", len(scores)) != len(scores):
        raise PlanError(f"{where}.num_examples {entry['num_examples']!r}: there are {len(scores)} scores")


def _candidate(entry: Mapping[str, Any], order: str) -> Candidate:
    if "scores" not in entry:
        return Candidate(entry["name"], entry[order], entry["mean"], entry["num_examples"], None)
    scores: Sequence[float] = entry["scores"]
    num_right = sum(score == 1 for score in scores) if all(score in (0, 1) for score in scores) else None
    return Candidate(entry["name"], entry[order], sum(scores) / len(scores), len(scores), num_right)


def _is_number(value: Any) -> bool:
    # Not math.isfinite: an integer of JSON may be larger than any float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_score(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1
