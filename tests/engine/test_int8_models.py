"""What else than a dense checkpoint is loaded with `quantization=int8`: mixtures of experts, and weights that nobody has."""

import math

import pytest
import torch

from tests.engine.random_models import answers_of_vllm, logprobs_of_transformers, make_model

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("in_this_process")]

INT8 = {"quantization": "int8", "dtype": "bfloat16"}
DENSE = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
MIXTURES = {
    "mixtral": DENSE | {"num_local_experts": 4},
    "qwen3_moe": DENSE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
}
NUM_LAYERS, NUM_LINEAR = 2, 2
"""`qkv_proj` and `o_proj`: the router stays as it is."""
TOLERANCE = 0.3
"""Of the mean difference of log-probabilities in nats, against FP32. Experts that were zero would make it 0.7 and more."""


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_mixture_has_its_experts_in_int8_where_there_is_a_kernel_and_is_right_in_any_case(model_type, tmp_path, caplog):
    model = make_model(tmp_path, model_type, MIXTURES[model_type])
    with caplog.at_level("INFO", "tokenport.engine"):
        answers = answers_of_vllm(tmp_path, INT8)
    told = [record.getMessage() for record in caplog.records if record.name == "tokenport.engine"]
    has_kernel = torch.cpu._is_amx_tile_supported()
    assert told[0].startswith(f"{NUM_LAYERS * (NUM_LINEAR + has_kernel)} layers are in INT8: ")
    left = [line for line in told if "could not be quantised" in line]
    assert len(left) == (not has_kernel)
    for line in left:
        assert line.startswith("2 layers could not be quantised and stay in 16 bits: model.layers.0.")
        assert "vLLM has no kernel for experts in INT8 here; on a CPU it has one with AMX" in line
    differences = []
    for tokens, logprobs in answers:
        expected = logprobs_of_transformers(model, tokens)
        differences += [abs(one - other) for one, other in zip(logprobs, expected, strict=True)]
    assert sum(differences) / len(differences) < TOLERANCE


def test_weights_that_are_made_up_are_made_up_in_int8(tmp_path, caplog):
    make_model(tmp_path, "llama", DENSE)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with caplog.at_level("INFO", "tokenport.engine"):
        answers = answers_of_vllm(tmp_path, INT8 | {"load_format": "dummy"})
    told = [record.getMessage() for record in caplog.records if record.name == "tokenport.engine"]
    assert [line.partition(":")[0] for line in told] == ["8 layers are in INT8"]
    assert all(math.isfinite(one) for _, logprobs in answers for one in logprobs)
