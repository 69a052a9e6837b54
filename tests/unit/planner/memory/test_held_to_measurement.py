"""The plan against what vLLM measured on H100 GPUs: every point in overheads.json, whose sources are public."""

import pytest

from serving.planner.memory.division import sharding_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.overhead_forms import Steps
from serving.planner.memory.overheads import overheads
from serving.planner.memory.weight_format import online_format
from serving.planner.memory.weights import weights_bytes
from serving.planner.model import FLOAT_BYTES
from tests.unit.planner.known_models import GIB, MEASURED, model

POINTS = [point for point in MEASURED["points"] if point["device"] == "cuda"]
TOLERANCE = 0.01


def name(point):
    ranks = f"{point['tensor_parallel_size']}x{point['pipeline_parallel_size']}"
    return "-".join(filter(None, (point["model"], ranks, point.get("dtype"), point.get("quantization"))))


def planned(point):
    made = model(point["model"])
    return made, Layout(sharding_of(made, point["tensor_parallel_size"], quantization=None), point["pipeline_parallel_size"])


@pytest.mark.parametrize("point", POINTS, ids=name)
def test_weights_are_within_one_percent(point):
    made, layout = planned(point)
    weight_format = online_format(point["quantization"]) if "quantization" in point else None
    size = weights_bytes(made, layout, weight_format, FLOAT_BYTES[point.get("dtype", "bfloat16")])
    assert size.estimate / GIB == pytest.approx(point["weights_gib"], rel=TOLERANCE)


@pytest.mark.parametrize("point", POINTS, ids=name)
def test_what_was_measured_lies_in_the_intervals(point):
    made, layout = planned(point)
    steps = Steps(point["max_num_batched_tokens"], point["max_num_seqs"], FLOAT_BYTES[point.get("dtype", "bfloat16")])
    taken = overheads(made, layout, steps, has_graphs=True)
    measured = {
        "activation_peak_bytes": point.get("activation_peak_gib"),
        "cuda_graph_bytes": point["cuda_graph_gib"],
        "start_bytes": point["start_gib"],
        "grown_bytes": point["non_torch_gib"],
    }
    for part, gib in measured.items():
        interval = getattr(taken, part)
        assert gib is None or (interval.low <= gib * GIB * 1.0001 and gib * GIB <= interval.high * 1.0001), part


def test_activations_follow_from_the_form_within_a_tenth():
    """The form explains the points, so that one factor does for dense models, mixtures of experts, and any number of ranks."""
    for point in POINTS:
        if "activation_peak_gib" not in point:
            continue
        made, layout = planned(point)
        steps = Steps(point["max_num_batched_tokens"], point["max_num_seqs"], FLOAT_BYTES[point.get("dtype", "bfloat16")])
        estimate = overheads(made, layout, steps, has_graphs=True).activation_peak_bytes.estimate
        assert estimate / GIB == pytest.approx(point["activation_peak_gib"], rel=0.13), name(point)
