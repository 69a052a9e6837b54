"""The model that is to be started, as the planner reads it: its files, or a hub's config.json, with what the user overrides."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.engine.parallel import overridden
from serving.errors import PlanError
from serving.planner.checkpoint.tensors import read_tensors
from serving.planner.model import Model, model_of


def model_to_plan(model: str, engine: Mapping[str, Any]) -> Model:
    """`model` is a local folder or a hub id, `engine` vLLM's arguments that the user set. Of a hub's model only the config is read.

    Raises:
        PlanError: the planner does not know such a model, or its files are damaged.
    """
    folder = Path(model)
    tensors = read_tensors(folder) if folder.is_dir() else ()
    return model_of(model, overridden(config_of(model, engine), engine), tensors)


@contextlib.contextmanager
def surprises_as_plan_errors() -> Iterator[None]:
    """Around all planning at a start: a config.json may have anything in it that vLLM understands and the planner does not, and a plan is
    no reason not to start."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise PlanError(f"config.json has something that the planner does not understand ({error!r})") from error


def config_of(model: str, engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json, of a folder or from the hub, where vLLM is about to fetch it anyway; empty if there is none."""
    file = Path(model) / "config.json"
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    from vllm.transformers_utils.repo_utils import get_hf_file_to_dict

    return get_hf_file_to_dict("config.json", model, engine.get("revision")) or {}
