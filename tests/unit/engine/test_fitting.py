"""What is refused before anything is loaded, and what is left to vLLM: models as config.json tells, devices that are only numbers."""

import json
from pathlib import Path

import pytest

from serving.engine.devices import as_cpu, as_gpu
from serving.engine.fitting import check_fit
from serving.engine.kv_cache_size import Wish
from serving.errors import NoFit, StartError
from tests.unit.planner.known_models import CONFIGS

GIB = 2**30
LLAMA_8B = CONFIGS["Llama-3.1-8B"] | {"architectures": ["LlamaForCausalLM"]}
SHORT = {"max_model_len": 4096}


@pytest.fixture
def model(tmp_path: Path):
    """Writes a model's config.json."""

    def write(config: dict) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return write


def refusal(model: str, devices: list, engine: dict, **wish) -> str | None:
    try:
        check_fit(model, engine, devices, Wish(**wish))
    except NoFit as error:
        return str(error)
    return None


def test_a_gpu_that_cannot_hold_the_weights_is_told_with_each_part_and_what_would_do(model):
    line = refusal(model(LLAMA_8B), [as_gpu("NVIDIA L4", 12 * GIB)], SHORT)
    assert "the model does not fit: on the GPU it needs" in line
    for part in ("weights", "KV cache", "activations", "CUDA graphs", "outside torch", "lacks"):
        assert part in line
    assert "quantization=int8" in line
    assert "tensor_parallel_size=" in line
    assert "\n" not in line
    assert issubclass(NoFit, StartError)


def test_what_may_fit_is_not_refused(model):
    assert refusal(model(LLAMA_8B), [as_gpu("NVIDIA L4", 22 * GIB)], SHORT) is None


def test_a_context_that_leaves_no_room_is_refused_with_the_one_that_does(model):
    line = refusal(model(LLAMA_8B), [as_gpu("NVIDIA L4", 22 * GIB)], {})
    assert "1 sequence of 131072 tokens" in line
    assert "a context of" in line


def test_of_unlike_gpus_the_smallest_decides(model):
    large, small = as_gpu("NVIDIA H100 80GB HBM3", 79 * GIB), as_gpu("NVIDIA L4", 8 * GIB)
    assert refusal(model(LLAMA_8B), [large, large], SHORT) is None
    assert refusal(model(LLAMA_8B), [large, small], SHORT) is not None


def test_the_size_that_the_kv_cache_is_to_have_counts(model):
    gpu, folder = [as_gpu("NVIDIA H100 80GB HBM3", 79 * GIB)], model(LLAMA_8B)
    assert refusal(folder, gpu, SHORT) is None
    given = refusal(folder, gpu, SHORT | {"kv_cache_memory_bytes": 90 * GIB})
    assert f"for kv_cache_memory_bytes={90 * GIB}" in given
    assert "what would do: kv_cache_memory_bytes=5" in given
    for line in (refusal(folder, gpu, SHORT, sequences=200), refusal(folder, gpu, SHORT, tokens=819_200)):
        assert "for a KV cache of 819200 tokens" in line
        assert "what would do: a KV cache of 4" in line


def test_a_kv_cache_given_in_bytes_may_go_beyond_the_engines_share_but_not_beyond_the_device(model):
    gpu, folder = [as_gpu("NVIDIA H100 80GB HBM3", 79 * GIB)], model(LLAMA_8B)
    assert refusal(folder, gpu, SHORT | {"kv_cache_memory_bytes": 50 * GIB, "gpu_memory_utilization": 0.5}) is None
    assert refusal(folder, gpu, SHORT | {"kv_cache_memory_bytes": 70 * GIB, "gpu_memory_utilization": 0.5}) is not None


def test_a_machine_with_less_memory_than_the_model_needs_is_refused_and_no_gpus_are_recommended(model):
    line = refusal(model(LLAMA_8B), [as_cpu(8 * GIB)], SHORT)
    assert "on this machine it needs" in line
    assert "GPU" not in line
    assert "tensor_parallel_size" not in line
    assert refusal(model(LLAMA_8B), [as_cpu(32 * GIB)], SHORT) is None


@pytest.mark.parametrize("engine", [{"cpu_offload_gb": 10}, {"nnodes": 2}, {"quantization": "something-new"}])
def test_what_the_planner_cannot_tell_is_left_to_vllm(model, engine):
    assert refusal(model(LLAMA_8B), [as_gpu("NVIDIA L4", 8 * GIB)], SHORT | engine) is None


@pytest.mark.parametrize("changes", [{"model_type": "brand_new"}, {"rope_scaling": ["of", "a", "new", "kind"]}])
def test_a_config_that_is_not_understood_is_left_to_vllm(model, changes):
    assert refusal(model(LLAMA_8B | changes), [as_gpu("NVIDIA L4", 8 * GIB)], SHORT) is None


@pytest.mark.parametrize(
    ("name", "gib", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 79.3, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "A100-40GB"),
        ("NVIDIA L4", 22.0, "L4"),
        ("NVIDIA L40S", 44.4, "L40S"),
        ("Tesla T4", 14.6, "T4"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 94.9, "RTX PRO 6000"),
    ],
)
def test_a_gpu_is_found_in_the_table_by_the_drivers_name(name, gib, known):
    from serving.planner.instances import find_gpu

    gpu = as_gpu(name, int(gib * GIB))
    assert (gpu.name, gpu.memory_bytes) == (name, int(gib * GIB))
    assert gpu.flops_per_s == find_gpu(known).flops_per_s


def test_a_gpu_that_is_not_in_the_table_is_planned_with_by_its_memory():
    gpu = as_gpu("NVIDIA X9000", 10 * GIB)
    assert (gpu.usable_bytes.estimate, gpu.flops_per_s) == (10 * GIB, {})
