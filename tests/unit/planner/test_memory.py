"""What fits where, for devices that are only numbers here."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import NoFit, StartError
from serving.planner.memory import GIB, Load, Weights, count_weights, need, read_weights, smallest_fit, weights_of_shape
from serving.planner.model_shape import ModelShape
from serving.planner.sharding import Precision, plan

LLAMA_8B = ModelShape("llama", 32, 4096, 32, 8, 128, 14336, 128256, 0, 131072, False)
LLAMA_70B = ModelShape("llama", 80, 8192, 64, 8, 128, 28672, 128256, 0, 131072, False)
QWEN_7B = ModelShape("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 0, 32768, False)
LOAD = Load(num_tokens=8192, kv_cache_bytes=None, num_batched_tokens=2048, num_sequences=256)
INT8 = replace(LOAD, precision=Precision(weight_bytes=1))
A10G, H100 = 22 * GIB, 79 * GIB


def size_for(shape: ModelShape, gpus: int, gpu_bytes: float, load: Load = LOAD) -> int:
    plans = [plan(shape, ranks, num_tokens=load.num_tokens) for ranks in range(1, gpus + 1)]
    return smallest_fit(plans, weights_of_shape(shape), load, [0.92 * gpu_bytes] * gpus).num_ranks


def test_the_weights_of_known_models_come_out_as_known():
    def billions(shape):
        weights = weights_of_shape(shape)
        return round((weights.linear + weights.embedding) / 1e9, 2)

    assert [billions(shape) for shape in (LLAMA_8B, LLAMA_70B, QWEN_7B)] == [8.03, 70.55, 7.62]


@pytest.mark.parametrize(
    ("shape", "gpus", "gpu_bytes", "load", "size"),
    [
        (LLAMA_8B, 1, A10G, LOAD, 1),
        (LLAMA_8B, 8, A10G, LOAD, 1),
        (QWEN_7B, 8, A10G, LOAD, 1),
        (LLAMA_8B, 4, A10G, replace(LOAD, num_tokens=131072), 2),
        (LLAMA_70B, 2, H100, INT8, 1),
        (LLAMA_70B, 4, H100, LOAD, 2),
        (LLAMA_70B, 8, H100, replace(LOAD, num_tokens=131072), 3),
        (LLAMA_70B, 8, A10G, INT8, 4),
    ],
)
def test_the_fewest_devices_that_hold_the_model_are_taken(shape, gpus, gpu_bytes, load, size):
    assert size_for(shape, gpus, gpu_bytes, load) == size


@pytest.mark.parametrize(("gpus", "gpu_bytes"), [(1, H100), (2, A10G), (4, A10G)])
def test_what_does_not_fit_is_told_with_what_it_needs_and_what_there_is(gpus, gpu_bytes):
    with pytest.raises(NoFit) as caught:
        size_for(LLAMA_70B, gpus, gpu_bytes)
    line = str(caught.value)
    assert f"on each of {gpus} GPUs it needs" in line
    assert f"has {0.92 * gpu_bytes / GIB:.1f} GiB" in line
    assert "\n" not in line
    assert isinstance(caught.value, StartError)


def test_the_smallest_of_the_devices_decides():
    plans = [plan(LLAMA_8B, ranks, num_tokens=8192) for ranks in (1, 2)]
    with pytest.raises(NoFit):
        smallest_fit(plans, weights_of_shape(LLAMA_8B), LOAD, [10 * GIB, 2 * GIB])
    assert smallest_fit(plans, weights_of_shape(LLAMA_8B), LOAD, [30 * GIB, 2 * GIB]).num_ranks == 1


def test_no_plan_at_all_is_told():
    with pytest.raises(NoFit, match="can share this model"):
        smallest_fit([], Weights(), LOAD, [H100])


def test_what_one_device_needs_is_its_part_of_all():
    whole, half = (need(plan(LLAMA_8B, ranks, num_tokens=8192), weights_of_shape(LLAMA_8B), LOAD) for ranks in (1, 2))
    assert half.weights_bytes == whole.weights_bytes / 2
    assert half.kv_cache_bytes == whole.kv_cache_bytes / 2
    assert whole.kv_cache_bytes == 8192 * 2 * 8 * 128 * 2 * 32
    assert whole.activation_bytes > half.activation_bytes > whole.activation_bytes / 2


def test_a_kv_cache_in_bytes_is_taken_as_it_is():
    load = replace(LOAD, kv_cache_bytes=5 * GIB)
    assert [need(plan(LLAMA_8B, n, num_tokens=1), weights_of_shape(LLAMA_8B), load).kv_cache_bytes for n in (1, 4)] == [5 * GIB] * 2


def test_stages_share_the_layers_and_not_the_vocabulary():
    weights = weights_of_shape(LLAMA_8B)
    staged = need(plan(LLAMA_8B, 1, num_tokens=8192), weights, replace(LOAD, num_stages=2))
    assert staged.weights_bytes == weights.linear + weights.embedding * 2
    assert staged.kv_cache_bytes == 8192 * 2 * 8 * 128 * 2 * 16


def test_padding_is_paid_for():
    weights = weights_of_shape(QWEN_7B)
    sharding = plan(QWEN_7B, 8, num_tokens=8192)
    extra = sharding.added_bytes(Precision())[0]
    assert extra > 0
    assert need(sharding, weights, LOAD).weights_bytes == pytest.approx(((weights.linear + weights.embedding) * 2 + extra) / 8)


def write(file: Path, tensors: dict[str, tuple[str, list[int], int]]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def test_weights_are_counted_from_the_headers_by_what_becomes_of_them(tmp_path):
    write(tmp_path / "a.safetensors", {"model.embed_tokens.weight": ("BF16", [10, 4], 80), "model.norm.weight": ("BF16", [4], 8)})
    write(tmp_path / "b.safetensors", {"l.q_proj.weight": ("F16", [4, 4], 32), "l.v_proj.weight": ("I8", [4, 4], 16)})
    write(tmp_path / "b2.safetensors", {"lm_head.weight": ("BF16", [10, 4], 80)})
    assert read_weights(tmp_path, has_tied_embeddings=True) == Weights(linear=16, embedding=40, small=4, fixed_bytes=16)
    assert read_weights(tmp_path, has_tied_embeddings=False).embedding == 80
    index = {"weight_map": {"model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path, has_tied_embeddings=True) == Weights(embedding=40, small=4)


def test_a_folder_without_safetensors_tells_nothing(tmp_path):
    assert read_weights(tmp_path, has_tied_embeddings=True) is None


def test_scales_of_a_quantized_checkpoint_count_as_what_they_are():
    tensor = {"dtype": "BF16", "shape": [8, 1], "data_offsets": [0, 16]}
    assert count_weights({"l.q_proj.weight_scale": tensor}, has_tied_embeddings=False) == Weights(linear=8)
