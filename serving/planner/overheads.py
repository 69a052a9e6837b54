"""What the engine takes beside weights and KV cache: activations at their peak, CUDA graphs, and what is outside torch.

Each is a form with few constants, fitted to the measured points in `overheads.json`; the interval is that of the residuals. Where no point
is near (another number of ranks, another version of the engine) it is wider, and a line says so.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from serving.planner.division import sharding_of
from serving.planner.hardware import Device
from serving.planner.interval import Interval, exactly
from serving.planner.layout import Layout
from serving.planner.model import FLOAT_BYTES, Model, model_of
from serving.planner.placement import Place

ENGINE_VERSION = "0.32"
_GIB = 2**30
_LOGIT_COPIES = 4
"""Copies of all logits in 32 bits that sampling makes: the logits, the values sorted, and the order, whose numbers have 64."""
_OTHER_VERSION = 0.5
"""By what part a figure measured with another version of the engine may be off. (From 0.16 to 0.17 activations of one model fell from 5.64
to 2.23 GiB: https://github.com/llm-d-incubation/llm-d-planner/pull/205.)"""
_FAR = 0.5
"""By what part a figure for a number of ranks that was not measured may be off."""


@dataclass(frozen=True)
class Steps:
    """What one step of the engine may be: tokens, sequences, bytes of a number."""

    num_batched_tokens: int
    num_seqs: int
    float_bytes: int


@dataclass(frozen=True)
class Overheads:
    """In bytes on one GPU. `start_bytes`: the part of `non_torch_bytes` that is there before the engine looks at what is free."""

    activation_peak_bytes: Interval
    cuda_graph_bytes: Interval
    non_torch_bytes: Interval
    start_bytes: Interval
    assumed: tuple[str, ...]


def overheads(model: Model, layout: Layout, steps: Steps, *, has_graphs: bool, device: Device = "cuda") -> Overheads:
    """On the device that takes most. Graphs are CUDA's."""
    fit = _fit(device)
    ranks = (layout.sharding.num_ranks, layout.num_stages)
    non_torch, start, is_near = fit.outside_torch(ranks)
    graphs = fit.graphs(_graph_features(model, layout)) if has_graphs and device == "cuda" else exactly(0)
    assumed = [f"activations, CUDA graphs and what is outside torch: fitted to {fit.where}"]
    if not is_near:
        assumed.append(f"what is outside torch for {ranks[0]} ranks in {ranks[1]} stages: not measured, taken from the nearest that was")
    return Overheads(
        activation_peak_bytes=fit.activation.times(activation_form(model, layout, steps)),
        cuda_graph_bytes=graphs,
        non_torch_bytes=non_torch + exactly(_copied_bytes(model, layout, steps.float_bytes, device)),
        start_bytes=start,
        assumed=tuple(assumed),
    )


def activation_form(model: Model, layout: Layout, steps: Steps) -> float:
    """The peak in bytes, as far as it follows from the code: of a layer in the middle (four hidden states, and queries, keys, values and
    attention's output, or the MLP's three), or of sampling (hidden states and copies of the logits), whichever is more; and an experts
    layer's two workspaces, which are kept (`TritonExperts.workspace_shapes` in vllm/model_executor/layers/fused_moe)."""
    decoder, sharding, shape = model.decoder, layout.sharding, model.shape
    heads = 2 * sharding.num_heads + 2 * sharding.num_kv_held
    mlp = 0 if shape.num_experts else 3 * sharding.intermediate_size
    layer = 4 * shape.hidden_size + max(heads * shape.head_dim, mlp) / sharding.num_ranks
    middle = steps.num_batched_tokens * layer * steps.float_bytes
    logits = _LOGIT_COPIES * 4 * steps.num_seqs * shape.vocab_size
    sampling = steps.num_batched_tokens * shape.hidden_size * steps.float_bytes + logits
    workspace = 0.0
    if shape.num_experts:
        width = (decoder.get("moe_intermediate_size") or shape.intermediate_size) / sharding.num_ranks / layout.num_replicas
        rows = steps.num_batched_tokens * int(decoder.get("num_experts_per_tok") or 1)
        workspace = rows * (max(width, shape.hidden_size) + max(2 * width, shape.hidden_size)) * steps.float_bytes
    return max(middle, sampling) + workspace


def _copied_bytes(model: Model, layout: Layout, float_bytes: int, device: Device) -> float:
    """The vocabulary's matrices, which the CPU's kernels have packed beside those that rows are looked up in
    (`dispatch_cpu_unquantized_gemm` in vllm/model_executor/layers/utils.py)."""
    if device != "cpu":
        return 0.0
    shape = model.shape
    num_matrices = 1 if shape.has_tied_embeddings else 2
    return num_matrices * shape.vocab_size * shape.hidden_size * float_bytes * float(layout.share(Place.VOCABULARY))


@dataclass(frozen=True)
class _Fit:
    """`activation`: a factor of `activation_form`. `graph_weights` of `_graph_features`, with the `graph_spread` of residuals as parts.
    `outside`: by ranks and stages, what is outside torch in all and what of it at the start."""

    where: str
    activation: Interval
    graph_weights: Sequence[float]
    graph_spread: Interval
    outside: Mapping[tuple[int, int], tuple[Interval, Interval]]

    def graphs(self, features: Sequence[float]) -> Interval:
        return self.graph_spread.times(float(np.dot(self.graph_weights, features)))

    def outside_torch(self, ranks: tuple[int, int]) -> tuple[Interval, Interval, bool]:
        if ranks in self.outside:
            return *self.outside[ranks], True
        nearest = min(self.outside, key=lambda known: (abs(known[1] - ranks[1]), abs(known[0] - ranks[0])))
        total, start = self.outside[nearest]
        return _widened(total, _FAR), _widened(start, _FAR), False


@cache
def _fit(device: Device) -> _Fit:
    document = json.loads(Path(__file__).with_name("overheads.json").read_text(encoding="utf-8"))
    points = [point for point in document["points"] if point["device"] == device]
    sources = [document["sources"][name] for name in sorted({point["source"] for point in points})]
    wider = 0.0 if any(ENGINE_VERSION in source["engine"] for source in sources) else _OTHER_VERSION
    models = {name: model_of(name, config) for name, config in document["configs"].items()}
    layouts = {id(point): _layout_of(models[point["model"]], point) for point in points}
    factors = [
        point["activation_peak_gib"] * _GIB / activation_form(models[point["model"]], layouts[id(point)], _steps_of(point))
        for point in points
        if "activation_peak_gib" in point
    ]
    graphs = [point for point in points if "cuda_graph_gib" in point]
    features = np.array([_graph_features(models[point["model"]], layouts[id(point)]) for point in graphs])
    measured = np.array([point["cuda_graph_gib"] * _GIB for point in graphs])
    weights = np.linalg.lstsq(features, measured, rcond=None)[0] if graphs else np.zeros(0)
    copied = [_copied_bytes(models[point["model"]], layouts[id(point)], _steps_of(point).float_bytes, device) for point in points]
    return _Fit(
        where="; ".join(f"{source['engine']} on {source['hardware']} ({source['date']})" for source in sources),
        activation=_widened(_spread(factors), wider),
        graph_weights=[float(weight) for weight in weights],
        graph_spread=_widened(_spread([float(part) for part in measured / (features @ weights)]), wider) if graphs else exactly(0),
        outside=_outside(points, copied),
    )


def _outside(points: Sequence[Mapping[str, Any]], copied: Sequence[float]) -> dict[tuple[int, int], tuple[Interval, Interval]]:
    """By ranks and stages; `copied`: of each point the bytes that follow from the model, which do not count here. NCCL's buffers depend on
    the links between GPUs, of which NVLink was measured: there may be as little as on one rank."""
    grouped: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for point, copied_bytes in zip(points, copied, strict=True):
        start = point["start_gib"] * _GIB
        ranks = (point["tensor_parallel_size"], point["pipeline_parallel_size"])
        grouped.setdefault(ranks, []).append((start + point["non_torch_gib"] * _GIB - copied_bytes, start))
    least_total, least_start = (min(figures) for figures in zip(*grouped[(1, 1)], strict=True))
    return {
        ranks: (
            replace(_spread([total for total, _ in group]), low=least_total),
            replace(_spread([start for _, start in group]), low=least_start),
        )
        for ranks, group in grouped.items()
    }


def _graph_features(model: Model, layout: Layout) -> list[float]:
    """Graphs grow with the layers that they hold, and more with those of experts."""
    layers = max(map(len, layout.stage_layers))
    return [1.0, float(layers), float(layers) if model.shape.num_experts else 0.0]


def _layout_of(model: Model, point: Mapping[str, Any]) -> Layout:
    sharding = sharding_of(model, point["tensor_parallel_size"], quantization=point.get("quantization"))
    return Layout(sharding, point["pipeline_parallel_size"])


def _steps_of(point: Mapping[str, Any]) -> Steps:
    return Steps(point["max_num_batched_tokens"], point["max_num_seqs"], FLOAT_BYTES[point.get("dtype", "bfloat16")])


def _spread(values: Sequence[float]) -> Interval:
    return Interval(statistics.median(values), min(values), max(values))


def _widened(interval: Interval, part: float) -> Interval:
    return Interval(interval.estimate, interval.low * (1 - part), interval.high * (1 + part))
