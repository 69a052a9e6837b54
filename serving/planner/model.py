"""A model as it is planned: its config, its sizes, and its tensors, exact from safetensors headers or computed from the config.

Read from a folder, a config.json, or by a function that fetches a hub id's files: the room itself knows no network.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.errors import PlanError
from serving.planner.checkpoint import placement
from serving.planner.checkpoint.computed_tensors import computed_tensors
from serving.planner.checkpoint.decoder_config import decoder_config, shape_of
from serving.planner.checkpoint.families import FAMILIES
from serving.planner.checkpoint.parts import Part, parts_of
from serving.planner.checkpoint.tensors import Tensor, read_tensors
from serving.planner.memory.weight_format import WeightFormat, checkpoint_config, checkpoint_format
from serving.planner.model_shape import ModelShape, text_config

_TORCH_TO_SAFETENSORS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float": "F32", "half": "F16"}
FLOAT_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
"""Bytes of a number by vLLM's names for `dtype`."""


@dataclass(frozen=True)
class Fetched:
    """What a hub has of a model: its config.json, parsed, and the tensors of its safetensors headers, empty if it has none."""

    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]


Fetch = Callable[[str], Fetched]
"""Gets a hub id's files. Raises PlanError if they cannot be had."""


@dataclass(frozen=True)
class Model:
    """`config` is the whole config.json, `decoder` its decoder's part (see `decoder_config`). `is_exact`: the tensors are those of the
    files. `assumed`: a line for each thing that the files do not tell."""

    name: str
    config: Mapping[str, Any]
    decoder: Mapping[str, Any]
    shape: ModelShape
    tensors: tuple[Tensor, ...]
    is_exact: bool
    assumed: tuple[str, ...]

    @property
    def checkpoint_method(self) -> str | None:
        """How the checkpoint is quantised, None for floats."""
        told = checkpoint_config(self.config)
        return None if told is None else str(told.get("quant_method", "compressed-tensors"))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The tensors, summed up by where a rank holds them and what quantisation makes of them."""
        return parts_of(self.tensors, self._computed_format)

    @property
    def _computed_format(self) -> WeightFormat | None:
        """What a checkpoint's config makes of tensors that are computed as floats; None where they are exact or floats."""
        told = checkpoint_config(self.config)
        return None if self.is_exact or told is None else checkpoint_format(told)


def read_model(source: str, fetch: Fetch | None = None) -> Model:
    """`source` is a folder, a config.json or, with `fetch`, a hub id.

    Raises:
        PlanError: there is nothing of that name, or it cannot be planned; says what and what would be right.
    """
    path = Path(source)
    if path.is_dir():
        return model_of(source, _read_config(path / "config.json"), read_tensors(path))
    if path.is_file():
        return model_of(source, _read_config(path), read_tensors(path.parent))
    if fetch is None or path.is_absolute() or source.startswith(".") or source.endswith(".json"):
        raise PlanError(f"MODEL={source}: no such folder or config.json")
    fetched = fetch(source)
    return model_of(source, fetched.config, fetched.tensors)


def model_of(name: str, config: Mapping[str, Any], tensors: tuple[Tensor, ...] = ()) -> Model:
    """From a parsed config.json and, where there are safetensors files, their tensors.

    Raises:
        PlanError: the architecture cannot be planned, or a field is missing or impossible.
    """
    decoder, left_out = decoder_config(config, has_tensors=bool(tensors))
    shape = shape_of(decoder)
    if tensors:
        kept = _loaded(tensors, shape)
        return Model(name, config, decoder, shape, kept, is_exact=True, assumed=(*_doubts_of_files(decoder, kept), *left_out))
    computed = computed_tensors(decoder, _TORCH_TO_SAFETENSORS.get(config_dtype(config), "BF16"))
    return Model(name, config, decoder, shape, computed, is_exact=False, assumed=(*_doubts_of_config(config), *left_out))


def parse_config(text: str, where: str) -> Mapping[str, Any]:
    """A config.json's content; `where` names it in errors.

    Raises:
        PlanError: it is none.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise PlanError(f"{where}: not the config.json of a model ({error})") from error
    if not isinstance(config, dict):
        raise PlanError(f"{where}: not the config.json of a model")
    return config


def config_dtype(config: Mapping[str, Any]) -> str:
    """The type of a checkpoint's floats by its config, `bfloat16` where it does not say."""
    told = next(
        (holder[key] for holder in (config, text_config(config)) for key in ("dtype", "torch_dtype") if holder.get(key)), "bfloat16"
    )
    return str(told).removeprefix("torch.")


def _loaded(tensors: tuple[Tensor, ...], shape: ModelShape) -> tuple[Tensor, ...]:
    """Without what the engine leaves in the file: layers beyond the last (for predicting several tokens), a copy of the vocabulary."""
    return tuple(
        tensor
        for tensor in tensors
        if placement.is_loaded(tensor.name)
        and (placement.layer_of(tensor.name) or 0) < shape.num_layers
        and not (shape.has_tied_embeddings and placement.is_head(tensor.name))
    )


def _doubts_of_files(decoder: Mapping[str, Any], tensors: Sequence[Tensor]) -> Iterator[str]:
    names = [tensor.name for tensor in tensors if placement.place_of(tensor.name, len(tensor.shape)) is placement.Place.UNKNOWN]
    if names:
        others = f" and {len(names) - 1} tensors more" if names[1:] else ""
        yield f"{names[0]}{others}: on every rank, since how they are divided is not known"
    if decoder["model_type"] not in FAMILIES:
        yield f"model_type={decoder['model_type']} is not known here: its KV cache is counted as Llama's, from the config's sizes"


def _doubts_of_config(config: Mapping[str, Any]) -> Iterator[str]:
    yield "sizes of the weights: computed from the config, since there are no safetensors files"
    if "vision_config" in config or "audio_config" in config:
        yield "weights of other inputs than text: left out, since there are no safetensors files to tell them"


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        return parse_config(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError as error:
        raise PlanError(f"{file}: there is no config.json") from error
    except (OSError, ValueError) as error:
        raise PlanError(f"{file}: not the config.json of a model ({error})") from error
