"""The texts are those of vLLM 0.32, torch and Transformers, with their numbers."""

import signal

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from serving.engine.diagnosis import Facts, death, is_lost_worker, memory_shortage, root_cause, start_failure, text_of

CORE_FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
WORKER_FAILED = "WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
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
        (
            "Total number of attention heads (9) must be divisible by tensor parallel size (2).",
            {},
            ["tensor_parallel_size=2", "9 attention heads", "sizes that can: 1, 3, 9"],
        ),
        ("AssertionError: 1536 is not divisible by 9", {"engine": {"tensor_parallel_size": 9}}, ["tensor_parallel_size=9", "1536"]),
        (
            "Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys(['AfmoeForCausalLM'",
            {},
            ["no architecture FooForCausalLM", "config.json", "plugin"],
        ),
        (
            "The checkpoint you are trying to load has model type `foo` but Transformers does not recognize this architecture.",
            {},
            ["model_type foo", "release"],
        ),
        ("The Transformers implementation of 'FooForCausalLM' is not compatible with vLLM.", {}, ["FooForCausalLM", "plugin"]),
        ("fp8 quantization is currently not supported in cpu.", {"on_cpu": True}, ["quantization fp8", "cpu", "use a GPU"]),
        (
            "World size (4) is larger than the number of available GPUs (1) in this node. If this is intentional and you are using:",
            {"engine": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}},
            ["tensor_parallel_size=2 x pipeline_parallel_size=2 needs 4 GPUs", "1 visible"],
        ),
        ("Failed to infer device type, please set the environment variable", {}, ["no GPU is visible", "--gpus all"]),
        (
            "The NVIDIA driver on your system is too old (found version 12020).",
            {},
            ["12020", "580", "al2023-ami-sagemaker-inference-gpu-4-1"],
        ),
        (
            "Insufficient space in /dev/shm for shared-memory allocation: 240 MiB required, 63 MiB free. Increase /dev/shm (e.g.",
            {},
            ["/dev/shm", "240 MiB needed", "63 MiB free", "--shm-size=1g"],
        ),
        (
            "User-specified max_model_len (9000000) is greater than the derived max_model_len (max_position_embeddings=8192.0 or "
            "model_max_length=None in model's config.json).",
            {},
            ["max_model_len=9000000", "8192", "max_position_embeddings"],
        ),
        ("TemplateSyntaxError: unexpected '}'", {}, ["chat template does not parse", "unexpected '}'"]),
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


def test_what_no_rule_knows_is_told_as_it_came_but_not_at_any_length():
    assert explained("something new") == "something new"
    assert len(explained("x" * 2000)) < 600


def test_a_workers_failure_is_explained_also_as_the_engine_core_passes_it_on():
    passed_on = f"Worker failed with error '{CUDA_OOM}', please check the stack trace above for the root cause"
    assert explained(passed_on).startswith("not enough GPU memory: GPU 0 has 22.06 GiB")


def test_the_first_failure_that_is_no_consequence_is_the_root_cause():
    assert root_cause(["no such tensor: lm_head", WORKER_FAILED, CORE_FAILED]) == "no such tensor: lm_head"
    assert root_cause(["Connection closed by peer [127.0.0.1]:1234", "no such tensor", WORKER_FAILED]) == "no such tensor"
    assert root_cause([WORKER_FAILED, CORE_FAILED]) == WORKER_FAILED
    assert root_cause([]) == ""


def test_a_worker_killed_while_loading_outweighs_what_its_peers_say():
    told = [
        "Connection closed by peer [127.0.0.1]:1234",
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -9)",
        WORKER_FAILED,
        CORE_FAILED,
    ]
    line = start_failure(told, {"EngineCore": 1}, Facts(oom_killed=True, memory_limit_bytes=8 << 30))
    assert "the worker process of rank 1 was killed by SIGKILL" in line
    assert "out of memory" in line
    assert "8.0 GiB" in line


def test_an_engine_core_killed_while_loading_is_named_with_its_signal():
    line = explained("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}", oom_killed=None)
    assert line.startswith("the engine core was killed by SIGKILL")
    assert "out of memory" in line


def test_a_kill_is_not_put_down_to_memory_if_the_kernel_counted_none():
    line = death([], {"EngineCore": -signal.SIGKILL}, Facts(oom_killed=False))
    assert line == "the engine process died: the engine core was killed by SIGKILL"


def test_a_bus_error_is_full_shared_memory():
    assert "--shm-size" in death([], {"EngineCore": -signal.SIGBUS}, Facts())


def test_a_death_with_a_reason_tells_the_reason_rather_than_the_exit_code():
    assert death([CUDA_OOM, "EngineCore encountered an issue."], {"EngineCore": 1}, Facts()).startswith(
        "the engine process died: not enough GPU memory"
    )


def test_a_death_without_a_reason_tells_the_exit_code_and_without_that_that_there_is_none():
    assert "exit code 1" in death([], {"EngineCore": 1}, Facts())
    assert death([], {}, Facts()).startswith("the engine process died: ")


def test_a_killed_worker_is_the_reason_though_the_core_ends_by_itself():
    told = ["Worker proc VllmWorker-0 died unexpectedly (exit code: -9)", "Executor failed."]
    assert "the worker process of rank 0 was killed by SIGKILL" in death(told, {"EngineCore": 1}, Facts(oom_killed=False))


def test_the_terminations_that_follow_a_failure_are_not_its_cause():
    assert "no such tensor" in death(["no such tensor"], {"EngineCore": -signal.SIGTERM}, Facts())


class Size(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def check(cls, size: int) -> int:
        raise ValueError(f"{size} is too\nlarge")


def test_an_exception_is_one_line_without_the_frame_around_it():
    assert text_of(ValueError("not\n  enough")) == "not enough"
    with pytest.raises(ValidationError) as caught:
        Size(size=3)
    assert text_of(caught.value) == "size 3 is too large"


def test_an_exception_that_says_little_by_itself_has_its_class_and_one_that_says_nothing_its_place():
    assert text_of(KeyError("lm_head")) == "KeyError: 'lm_head'"
    assert text_of(KeyError("invalid tool call parser: x")) == "invalid tool call parser: x"
    assert text_of(AssertionError()) == "AssertionError"
    with pytest.raises(AssertionError) as caught:
        raise AssertionError
    assert text_of(caught.value).startswith("AssertionError in ")
    assert "test_diagnosis.py:" in text_of(caught.value)


def test_a_worker_is_lost_also_before_its_exit_code_is_known():
    text = "Worker proc VllmWorker-2 died unexpectedly (exit code: None), shutting down executor."
    assert is_lost_worker(text)
    assert not is_lost_worker("the adapter could not be loaded")
    assert death([text], {}, Facts()) == "the engine process died: the worker process of rank 2 died"
