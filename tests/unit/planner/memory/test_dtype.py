"""What a model is computed in on a GPU, as vLLM's rules have it."""

from dataclasses import replace

import pytest

from serving.errors import PlanError
from serving.planner.instances import find_gpu
from serving.planner.memory.fit import make_plan
from serving.planner.plan import PlanRequest
from tests.unit.planner.known_models import gpu, model

NEW = gpu(80)
OLD = replace(NEW, name="T4", has_bfloat16=False)


def computed(on, *, dtype="auto", quantization=None, **config):
    return make_plan(model("Llama-3.1-8B", **config), PlanRequest(context=1024, dtype=dtype, quantization=quantization), on, 1)


@pytest.mark.parametrize(
    ("own", "on", "found"),
    [
        ("bfloat16", NEW, "bfloat16"),
        ("float16", NEW, "float16"),
        ("float32", NEW, "bfloat16"),
        ("bfloat16", OLD, "float16"),
        ("float32", OLD, "float16"),
    ],
)
def test_auto_is_the_checkpoints_own_type_in_16_bits_that_the_gpu_has(own, on, found):
    assert computed(on, torch_dtype=own).request.dtype == found


def test_what_cannot_be_bfloat16_is_told():
    assert "dtype: float16, since T4 has no bfloat16" in computed(OLD).assumed
    assert not any(line.startswith("dtype") for line in computed(NEW).assumed)


def test_a_model_that_float16_is_too_narrow_for_takes_32_bits_where_there_is_no_bfloat16():
    narrow, wide = computed(NEW, model_type="glm4"), computed(OLD, model_type="glm4")
    assert (narrow.request.dtype, wide.request.dtype) == ("bfloat16", "float32")
    assert wide.per_gpu.weights_bytes.estimate == 2 * narrow.per_gpu.weights_bytes.estimate
    assert wide.kv_bytes_per_token == 2 * narrow.kv_bytes_per_token


@pytest.mark.parametrize(
    ("on", "dtype", "config", "told"),
    [
        (OLD, "bfloat16", {}, r"dtype=bfloat16: vLLM refuses it for T4; it can be auto, float16, float32"),
        (NEW, "half", {"model_type": "glm4"}, r"dtype=half: vLLM refuses it for the model; it can be auto, bfloat16, float32"),
    ],
)
def test_what_vllm_refuses_is_refused(on, dtype, config, told):
    with pytest.raises(PlanError, match=told):
        computed(on, dtype=dtype, **config)


def test_int8_has_no_kernels_for_what_is_computed_in_32_bits():
    with pytest.raises(PlanError, match="computed in float32 on T4, and INT8 kernels answer in 16 bits"):
        computed(OLD, quantization="int8", model_type="glm4")


def test_the_table_says_which_gpus_have_no_bfloat16():
    assert not find_gpu("T4").has_bfloat16
    assert find_gpu("A10G").has_bfloat16
