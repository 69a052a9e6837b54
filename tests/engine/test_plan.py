"""Plans held to engines that were started: tiny models of every architecture that the planner knows.

Weights within a hundredth, the KV cache to the byte. The plan is made of the config alone, or of the headers of the files.
"""

import math
import os

import pytest

from serving.engine.cpu import find_cores, openmp_environment
from serving.engine.settle import settle
from serving.planner.checkpoint.families import FAMILIES
from serving.planner.plan import Plan
from tests.engine.random_models import make_model
from tests.engine.tiny_models import CONTEXT, HEADS, INT8, MODELS, Measured, measured, planned, write_config

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("in_this_process")]


def hold(plan: Plan, found: Measured) -> None:
    assert plan.per_gpu.weights_bytes.estimate == pytest.approx(found.weights_bytes, rel=0.01)
    if math.isclose(found.kv_bytes_per_sequence, CONTEXT * found.kv_bytes_per_token):
        assert plan.kv_bytes_per_token == found.kv_bytes_per_token
    else:  # some layers keep less than the whole context
        assert plan.kv_bytes_per_token == math.ceil(found.kv_bytes_per_sequence / CONTEXT)


def test_every_architecture_that_is_known_is_held_to_measurement():
    assert MODELS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("model_type", MODELS)
def test_the_config_alone_tells_weights_and_kv_cache(model_type, tmp_path):
    write_config(tmp_path, model_type)
    hold(planned(tmp_path), measured(tmp_path))


@pytest.mark.parametrize("model_type", INT8)
def test_weights_that_become_int8_while_they_load_are_planned_so(model_type, tmp_path):
    write_config(tmp_path, model_type)
    hold(planned(tmp_path, quantization="int8"), measured(tmp_path, quantization="int8"))


@pytest.mark.parametrize("model_type", ["llama", "nemotron"])
def test_the_headers_of_the_files_tell_the_same_of_a_family_that_is_not_known_too(model_type, tmp_path):
    make_model(tmp_path, model_type, HEADS)
    plan = planned(tmp_path)
    assert not any("computed from the config" in line for line in plan.assumed)
    hold(plan, measured(tmp_path))


def test_each_of_two_ranks_holds_what_was_planned_with_the_padding_that_they_need(tmp_path, monkeypatch):
    for name, value in openmp_environment(find_cores(sorted(os.sched_getaffinity(0))), 2, None, {}).items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path, "llama", hidden_size=288, num_attention_heads=9, num_key_value_heads=3)
    settled = settle({"tensor_parallel_size": 2}, str(tmp_path), on_cpu=True)
    assert settled["hf_overrides"]["num_key_value_heads"] == 4
    hold(planned(tmp_path, num_ranks=2), measured(tmp_path, **settled))


def test_a_cache_of_8_bit_numbers_takes_half(tmp_path):
    write_config(tmp_path, "llama")
    assert planned(tmp_path, kv_cache_dtype="fp8").kv_bytes_per_token * 2 == planned(tmp_path).kv_bytes_per_token
    hold(planned(tmp_path, kv_cache_dtype="fp8"), measured(tmp_path, kv_cache_dtype="fp8"))
