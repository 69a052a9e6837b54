"""What a model makes the machine do: bytes of weights to read each step, bytes of KV cache a token, FLOPs a token. From the server's ledger
for bytes, which are those truly loaded, quantised or not, and from config.json for the shape; a figure that these do not give is None with
the reason. Knows nothing of how fast it went.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import BenchmarkError, PlanError
from serving.planner.checkpoint.tensors import read_tensors
from serving.planner.model import model_of
from serving.planner.model_shape import ModelShape, read_shape, text_config
from serving.planner.speed.decoder_work import work_of
from serving.planner.speed.work_per_token import WorkPerToken

_FLOAT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_RATES = {**{name: name for name in _FLOAT_BYTES}, "int8": "int8", "float8_e4m3fn": "float8"}
"""By the type of the weights the rate that they are computed at: W8A8 at that of 8 bit, floats at their own."""
_OTHER_INPUTS = ("vision_config", "audio_config", "speech_config")


@dataclass(frozen=True, slots=True)
class ModelWork:
    """`weights_read_bytes`, `kv_bytes_per_token`: over all ranks of all replicas; None for the reason in `bytes_reason`. `flops`, None for
    `reason`, which also says why the type is not known that they are computed in."""

    device: str
    num_devices: int
    weights_read_bytes: float | None = None
    kv_bytes_per_token: float | None = None
    bytes_reason: str | None = None
    flops: WorkPerToken | None = None
    precision: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A config.json and the folder it lies in, whose weights tell their own number where they are there."""

    config: Mapping[str, Any]
    folder: Path

    @property
    def shape(self) -> ModelShape | None:
        """The decoder's sizes; None where the config lacks one."""
        return read_shape(self.config)


def read_config(path: Path) -> ModelConfig:
    """From config.json, or the folder that it is in.

    Raises:
        BenchmarkError: it is not there or is not JSON.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"--model-config {path}: give a model's folder or its config.json ({error})") from error
    if not isinstance(config, dict):
        raise BenchmarkError(f"--model-config {path}: not the config.json of a model")
    return ModelConfig(config, file.parent)


def config_at(root: str | None) -> ModelConfig | None:
    """The config of the model that a server names as its `root` (`GET /v1/models`), where that is a folder on this machine."""
    if root is None or not (Path(root) / "config.json").is_file():
        return None
    return read_config(Path(root))


def model_work(
    ledger: Mapping[str, Any] | None, model: ModelConfig | None, *, num_replicas: int = 1, num_stages: int = 1
) -> ModelWork | None:
    """From `GET /memory` and the model's config. None without a ledger: then not even the device is known. `num_replicas` and `num_stages`
    are the data and pipeline parallel sizes, which the ledger does not tell."""
    if not ledger or not ledger.get("devices"):
        return None
    devices = ledger["devices"]
    kind = "cpu" if devices[0]["device"].startswith("cpu") else "cuda"
    shape = model.shape if model is not None else None
    if model is None or shape is None:
        reason = "the model's config.json is not known: give --model-config" if model is None else "its config.json lacks a decoder's sizes"
        return ModelWork(
            kind, len(devices), kv_bytes_per_token=_kv_bytes_per_token(devices, num_replicas), bytes_reason=reason, reason=reason
        )
    unusual = _unusual(model.config, num_stages)
    if unusual is not None:
        return ModelWork(kind, len(devices), bytes_reason=unusual, reason=unusual)
    precision = _precision(devices, shape)
    flops, why_no_flops = _flops(model)
    why_no_rate = None if precision is not None else f"no rate is known for weights of {', '.join(_sum_by_dtype(devices))}"
    return ModelWork(
        device=kind,
        num_devices=len(devices),
        weights_read_bytes=_weights_read_bytes(devices, shape, num_replicas),
        kv_bytes_per_token=_kv_bytes_per_token(devices, num_replicas),
        flops=flops,
        precision=precision,
        reason=why_no_flops or why_no_rate,
    )


def _flops(model: ModelConfig) -> tuple[WorkPerToken | None, str | None]:
    """Of a token, or why they are not known."""
    try:
        known = model_of(str(model.folder), model.config, read_tensors(model.folder))
        return work_of(known.decoder, known.tensors), None
    except PlanError as error:
        return None, str(error)


def _unusual(config: Mapping[str, Any], num_stages: int) -> str | None:
    """What makes a step read or compute something else than all weights and the whole context."""
    shape, text = read_shape(config), text_config(config)
    layers = set(text.get("layer_types") or ["full_attention"])
    if shape is not None and shape.num_experts:
        return "a mixture of experts: which experts a step reads is not known"
    if any(isinstance(config.get(name), Mapping) for name in _OTHER_INPUTS):
        return "a model with other inputs than text: which of its weights a step reads is not known"
    if text.get("kv_lora_rank"):
        return "multi-head latent attention: its work is not counted here"
    if layers != {"full_attention"} or (text.get("sliding_window") and text.get("use_sliding_window", True)):
        return "not all layers look at the whole context: what a step reads is not known"
    if num_stages > 1:
        return "pipeline stages work on several steps at once: the number of steps is not known"
    return None


def _weights_read_bytes(devices: Sequence[Mapping[str, Any]], shape: ModelShape, num_replicas: int) -> float:
    """All that is loaded, once a step, less the input embedding, of which a step reads a row a token; where it is tied, the same matrix is
    read whole for the logits. It is kept in the model's own float type: the float type of 16 bits among the loaded ones, else of 32."""
    total = float(sum(device["weights_bytes"] for device in devices))
    return total if shape.has_tied_embeddings else total - num_replicas * shape.vocab_size * shape.hidden_size * _float_bytes(devices)


def _kv_bytes_per_token(devices: Sequence[Mapping[str, Any]], num_replicas: int) -> float | None:
    """The cache's bytes over all ranks of a replica by the tokens that it holds, at full context, as vLLM counts them. (The ledger tells
    blocks, but not how many tokens one has.)"""
    tokens = devices[0]["kv_cache_tokens"]
    return sum(device["kv_cache_bytes"] for device in devices) / num_replicas / tokens if tokens else None


def _precision(devices: Sequence[Mapping[str, Any]], shape: ModelShape) -> str | None:
    """The type of most bytes once the vocabulary's matrices, which stay floats, are taken away; None where it has no rate of its own."""
    totals = _sum_by_dtype(devices)
    if not totals:
        return None
    floats = [name for name in _FLOAT_BYTES if name in totals]
    matrices = 1 if shape.has_tied_embeddings else 2
    if floats:
        totals[floats[0]] -= matrices * shape.vocab_size * shape.hidden_size * _FLOAT_BYTES[floats[0]]
    return _RATES.get(max(totals, key=lambda name: totals[name]))


def _float_bytes(devices: Sequence[Mapping[str, Any]]) -> int:
    totals = _sum_by_dtype(devices)
    return next((size for name, size in _FLOAT_BYTES.items() if name in totals), 2)


def _sum_by_dtype(devices: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for device in devices:
        for name, size in device["weights_by_dtype"].items():
            totals[name] = totals.get(name, 0) + size
    return totals
