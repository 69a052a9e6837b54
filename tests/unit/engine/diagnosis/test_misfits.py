"""What does not go together, in the texts of vLLM 0.32 and Transformers."""

import pytest

from serving.engine.diagnosis.line import start_failure
from serving.engine.diagnosis.rule import Facts


def explained(text: str, **facts) -> str:
    return start_failure([text], {}, Facts(**facts))


@pytest.mark.parametrize(
    ("text", "facts", "said"),
    [
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
def test_what_vllm_says_becomes_what_is_wrong_and_what_would_be_right(text, facts, said):
    line = explained(text, **facts)
    assert [part for part in said if part not in line] == [], line
    assert "\n" not in line
