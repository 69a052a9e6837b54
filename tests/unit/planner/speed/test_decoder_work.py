"""The work of real architectures, from their configs."""

import pytest

from serving.errors import PlanError
from serving.planner.model import model_of
from serving.planner.speed.decoder_work import computed_in, work_of
from tests.unit.planner.known_models import CONFIGS

LLAMA_8B = CONFIGS["Llama-3.1-8B"]
MIXTRAL = {**LLAMA_8B, "model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}


def work(config):
    model = model_of("a-model", config)
    return work_of(model.decoder, model.tensors)


def test_llama_8b_has_seven_billion_weights_in_its_layers_and_half_a_billion_in_the_vocabulary():
    found = work(LLAMA_8B)
    assert found.num_linear == 32 * 4096 * (2 * (32 + 8) * 128 + 3 * 14336)
    assert found.num_vocabulary == 128256 * 4096
    assert found.attention_flops == 4 * 32 * 32 * 128
    assert found.num_experts == 0


def test_of_mixtral_a_token_goes_through_two_of_eight_experts():
    found = work(MIXTRAL)
    assert found.share_of_experts(1) == 2 / 8
    assert found.num_linear == pytest.approx(12.6e9, rel=0.02)


def test_latent_attention_decodes_on_the_cached_vector_and_computes_prompts_by_heads():
    found = work(CONFIGS["DeepSeek-V3"])
    assert found.attention_flops == 2 * 61 * 128 * (512 + 512 + 64)
    assert found.prompt_attention_flops == 2 * 61 * 128 * (128 + 64 + 128)


def test_a_mixture_that_does_not_say_how_many_it_chooses_is_refused():
    config = {name: value for name, value in MIXTRAL.items() if name != "num_experts_per_tok"}
    with pytest.raises(PlanError, match="num_experts_per_tok"):
        work(config)


@pytest.mark.parametrize(
    ("quantization", "told", "rate"),
    [
        (None, None, "float16"),
        ("int8", None, "int8"),
        ("fp8", None, "float8"),
        ("bitsandbytes", None, "float16"),
        (None, {"quant_method": "fp8"}, "float8"),
        (None, {"quant_method": "fbgemm_fp8"}, "float8"),
        (None, {"quant_method": "modelopt", "quant_algo": "FP8"}, "float8"),
        (None, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "float16"),
        (None, {"quant_method": "awq", "bits": 4}, "float16"),
        (None, {"config_groups": {"a": {"weights": {"num_bits": 4}, "input_activations": None}}}, "float16"),
        (None, {"config_groups": {"a": {"input_activations": {"num_bits": 8, "type": "int"}}}}, "int8"),
        (None, {"config_groups": {"a": {"input_activations": {"num_bits": 8, "type": "float"}}}}, "float8"),
    ],
)
def test_layers_are_computed_in_8_bits_only_where_weights_and_activations_have_them(quantization, told, rate):
    assert computed_in(quantization, {"quantization_config": told} if told else {}) == rate
