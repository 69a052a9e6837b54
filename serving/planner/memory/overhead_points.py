"""The measured points in `overheads.json`, and what is fitted to them: factors and sums, each with the interval of its residuals.

Where no point is near (another number of ranks, another version of the engine) the interval is wider.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from serving.planner.hardware import Device
from serving.planner.interval import Interval, exactly
from serving.planner.memory.division import sharding_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.overhead_forms import Steps, activation_form, copied_bytes, graph_features
from serving.planner.model import FLOAT_BYTES, Model, model_of

_ENGINE_VERSION = "0.32"
_GIB = 2**30
_OTHER_VERSION = 0.5
"""By what part a figure measured with another version of the engine may be off. (From 0.16 to 0.17 activations of one model fell from 5.64
to 2.23 GiB: https://github.com/llm-d-incubation/llm-d-planner/pull/205.)"""
_FAR = 0.5
"""By what part a figure for a number of ranks that was not measured may be off."""

Ranks = tuple[int, int]
"""Tensor parallel ranks of a stage, and stages."""


@dataclass(frozen=True)
class Point:
    """One measurement: of what, and what it took; None for what was not measured. See the note in `overheads.json`."""

    model: Model
    layout: Layout
    steps: Steps
    activation_peak_bytes: float | None
    cuda_graph_bytes: float | None
    start_bytes: float
    grown_bytes: float


@dataclass(frozen=True)
class Outside:
    """Outside torch: what is there before the engine looks at what is free, and what has grown since."""

    start_bytes: Interval
    grown_bytes: Interval


@dataclass(frozen=True)
class Fit:
    """`where`: engine, hardware and date of the points. `activation`: a factor of `activation_form`. `graph_weights` of `graph_features`,
    whose sum is times `graph_spread`. `outside`: by ranks, without `copied_bytes`."""

    where: str
    activation: Interval
    graph_weights: Sequence[float]
    graph_spread: Interval
    outside: Mapping[Ranks, Outside]

    def graph_bytes(self, features: Sequence[float]) -> Interval:
        """Of all CUDA graphs together."""
        return self.graph_spread.times(float(np.dot(self.graph_weights, features)))

    def outside_torch(self, ranks: Ranks) -> Outside:
        """Of those ranks, or wider of the nearest that were measured."""
        if ranks in self.outside:
            return self.outside[ranks]
        nearest = self.outside[min(self.outside, key=lambda known: (abs(known[1] - ranks[1]), abs(known[0] - ranks[0])))]
        return Outside(_widened(nearest.start_bytes, _FAR), _widened(nearest.grown_bytes, _FAR))


@cache
def fitted(device: Device) -> Fit:
    """To the points that were measured on that kind of device."""
    document = json.loads(Path(__file__).with_name("overheads.json").read_text(encoding="utf-8"))
    rows = [row for row in document["points"] if row["device"] == device]
    sources = [document["sources"][name] for name in sorted({row["source"] for row in rows})]
    points = [_point(row, document["configs"][row["model"]], device) for row in rows]
    wider = 0.0 if any(_ENGINE_VERSION in source["engine"] for source in sources) else _OTHER_VERSION
    graph_weights, graph_spread = _graphs(points)
    return Fit(
        where="; ".join(f"{source['engine']} on {source['hardware']} ({source['date']})" for source in sources),
        activation=_widened(_activation(points), wider),
        graph_weights=graph_weights,
        graph_spread=_widened(graph_spread, wider),
        outside=_outside(points),
    )


def _point(row: Mapping[str, Any], config: Mapping[str, Any], device: Device) -> Point:
    model = model_of(row["model"], config)
    layout = Layout(
        sharding_of(model, row["tensor_parallel_size"], quantization=row.get("quantization")), num_stages=row["pipeline_parallel_size"]
    )
    steps = Steps(row["max_num_batched_tokens"], row["max_num_seqs"], FLOAT_BYTES[row.get("dtype", "bfloat16")])
    peak, graphs = row.get("activation_peak_gib"), row.get("cuda_graph_gib")
    return Point(
        model=model,
        layout=layout,
        steps=steps,
        activation_peak_bytes=None if peak is None else peak * _GIB,
        cuda_graph_bytes=None if graphs is None else graphs * _GIB,
        start_bytes=row["start_gib"] * _GIB,
        grown_bytes=row["non_torch_gib"] * _GIB - copied_bytes(model, layout, steps, device),
    )


def _activation(points: Sequence[Point]) -> Interval:
    measured = [(point, point.activation_peak_bytes) for point in points if point.activation_peak_bytes is not None]
    return _spread([peak / activation_form(point.model, point.layout, point.steps) for point, peak in measured])


def _graphs(points: Sequence[Point]) -> tuple[list[float], Interval]:
    """Least squares, and by what factors the points are off."""
    measured = [
        (graph_features(point.model, point.layout), point.cuda_graph_bytes) for point in points if point.cuda_graph_bytes is not None
    ]
    if not measured:
        return [0.0, 0.0, 0.0], exactly(1)
    features, sizes = np.array([row for row, _ in measured]), np.array([size for _, size in measured])
    weights = np.linalg.lstsq(features, sizes, rcond=None)[0]
    return [float(weight) for weight in weights], _spread([float(part) for part in sizes / (features @ weights)])


def _outside(points: Sequence[Point]) -> dict[Ranks, Outside]:
    """NCCL's buffers depend on the links between GPUs, of which NVLink was measured: there may be as little as on one rank."""
    grouped: dict[Ranks, list[Point]] = {}
    for point in points:
        grouped.setdefault((point.layout.sharding.num_ranks, point.layout.num_stages), []).append(point)
    alone = grouped[(1, 1)]
    least_start, least_grown = min(point.start_bytes for point in alone), min(point.grown_bytes for point in alone)
    return {
        ranks: Outside(
            _spread([point.start_bytes for point in group], least_start), _spread([point.grown_bytes for point in group], least_grown)
        )
        for ranks, group in grouped.items()
    }


def _spread(values: Sequence[float], *others: float) -> Interval:
    """The median of `values`, between the ends of them and of `others`."""
    return Interval(statistics.median(values), min([*values, *others]), max([*values, *others]))


def _widened(interval: Interval, part: float) -> Interval:
    return Interval(interval.estimate, interval.low * (1 - part), interval.high * (1 + part))
