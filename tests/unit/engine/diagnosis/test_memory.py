"""Want of memory, in the texts of vLLM 0.32 and torch, with their numbers."""

import pytest

from serving.engine.diagnosis.line import start_failure
from serving.engine.diagnosis.memory import memory_shortage
from serving.engine.diagnosis.rule import Facts

CUDA_OOM = (
    "CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total capacity of 22.06 GiB of which 312.44 MiB is free. Including "
    "non-PyTorch memory, this process has 21.74 GiB memory in use. Of the allocated memory 21.50 GiB is allocated by PyTorch."
)
KV_CACHE = (
    "To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available "
    "KV cache memory (5.5 GiB). Based on the available memory, the estimated maximum model length is 45040. Try increasing "
    "`gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len`."
)


def explained(text: str, **facts) -> str:
    return start_failure([text], {}, Facts(**facts))


@pytest.mark.parametrize(
    ("text", "facts", "said"),
    [
        (
            CUDA_OOM,
            {},
            ["not enough GPU memory", "GPU 0 has 22.06 GiB", "312.44 MiB of it free", "448.00 MiB more", "tensor_parallel_size"],
        ),
        ("CUDA error: out of memory", {}, ["not enough GPU memory", "max_model_len"]),
        (
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine",
            {"engine": {"gpu_memory_utilization": 0.5}},
            ["weights leave nothing", "gpu_memory_utilization=0.5", "raise gpu_memory_utilization"],
        ),
        (KV_CACHE, {}, ["max_model_len=131072 needs 16.0 GiB", "the cache has 5.5 GiB", "45040 or less", "raise gpu_memory_utilization"]),
        (KV_CACHE, {"engine": {"kv_cache_memory_bytes": 5 << 30}}, ["raise kv_cache_memory_bytes"]),
        (
            "Free memory on device cuda:0 (17.3/79.1 GiB) on startup is less than desired GPU memory utilization (0.92, 72.77 GiB). Decr",
            {},
            ["cuda:0", "needs 72.77 GiB", "17.3 of 79.1 GiB are free", "gpu_memory_utilization=0.21 or less"],
        ),
        (
            "Available memory on node 0 (3.2/24.0 GiB) on startup is less than desired CPU memory utilization (0.92, 22.08 GiB). On",
            {"on_cpu": True},
            ["node 0", "needs 22.08 GiB", "3.2 of 24.0 GiB are free", "gpu_memory_utilization=0.13 or less"],
        ),
        (
            "Available memory on node 0 (20.1/24.0 GiB) on kv cache allocation is less than requested memory for kv (900.0 GiB). Decrease",
            {"on_cpu": True},
            ["KV cache needs 900.0 GiB", "20.1 of 24.0 GiB are free", "smaller kv_cache_memory_bytes"],
        ),
        (
            "Available memory on node 0 (20.1/24.0 GiB) on kv cache allocation is less than requested memory for kv (-1.5/2.4 GiB). Reduce",
            {"on_cpu": True},
            ["the model takes 3.90 GiB", "may use 2.4 of 24.0 GiB", "raise gpu_memory_utilization"],
        ),
    ],
)
def test_what_vllm_says_becomes_what_is_needed_what_is_there_and_what_to_set(text, facts, said):
    line = explained(text, **facts)
    assert [part for part in said if part not in line] == [], line
    assert "\n" not in line


def test_a_gpu_whose_weights_leave_nothing_for_the_cache_is_told_with_needs_and_has():
    line = explained(memory_shortage(20 << 30, -(3 << 30)))
    assert "needs 23.00 GiB before any KV cache, 20.00 GiB may be used" in line
    assert "raise gpu_memory_utilization" in line
