"""What the engine takes beside weights and KV cache: activations at their peak, CUDA graphs, and what is outside torch."""

from dataclasses import dataclass

from serving.planner.hardware import Device
from serving.planner.interval import Interval, exactly
from serving.planner.memory.layout import Layout
from serving.planner.memory.overhead_forms import Steps, activation_form, copied_bytes, graph_features
from serving.planner.memory.overhead_points import fitted
from serving.planner.model import Model
from serving.planner.model_shape import experts_per_token


@dataclass(frozen=True)
class Overheads:
    """In bytes on one device. Outside torch (CUDA's context, NCCL, libraries): `start_bytes` are there before the engine looks at what is
    free, `grown_bytes` come later and count against its share."""

    activation_peak_bytes: Interval
    cuda_graph_bytes: Interval
    start_bytes: Interval
    grown_bytes: Interval
    assumed: tuple[str, ...]


def overheads(model: Model, layout: Layout, steps: Steps, *, has_graphs: bool, device: Device = "cuda") -> Overheads:
    """On the device that takes most. Graphs are CUDA's."""
    fit, ranks = fitted(device), (layout.sharding.num_ranks, layout.num_stages)
    outside = fit.outside_torch(ranks)
    assumed = [f"activations, CUDA graphs and what is outside torch: fitted to {fit.where}"]
    if ranks not in fit.outside:
        assumed.append(f"what is outside torch for {ranks[0]} ranks in {ranks[1]} stages: not measured, taken from the nearest that was")
    if model.shape.num_experts and not experts_per_token(model.decoder):
        assumed.append("num_experts_per_tok: 1, since config.json has none; activations may be more")
    return Overheads(
        activation_peak_bytes=fit.activation.times(activation_form(model, layout, steps)),
        cuda_graph_bytes=fit.graph_bytes(graph_features(model, layout)) if has_graphs and device == "cuda" else exactly(0),
        start_bytes=outside.start_bytes,
        grown_bytes=outside.grown_bytes + exactly(copied_bytes(model, layout, steps, device)),
        assumed=tuple(assumed),
    )
