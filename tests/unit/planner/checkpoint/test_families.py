"""Every family that is planned from its config alone, against the model that Transformers builds of it, on torch's meta device.

Held twice: all numbers together, and what a rank gets when the same model is planned from Transformers' own names for its tensors.
"""

import json
from functools import cache

import pytest

from serving.planner.checkpoint.families import FAMILIES
from serving.planner.checkpoint.tensors import Tensor
from serving.planner.memory.division import sharding_of
from serving.planner.memory.layout import Layout
from serving.planner.memory.weight_format import online_format
from serving.planner.memory.weights import weights_bytes
from serving.planner.model import Model, model_of

SMALL = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8}
SIZES = {"intermediate_size": 512, "num_key_value_heads": 4}
HAVE_OTHER_SIZES = ("gpt2", "gpt_bigcode", "gpt_neox", "opt", "falcon", "bloom")
EXPERTS = {"moe_intermediate_size": 64, "n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
CHANGES = {
    "deepseek_v2": EXPERTS | {"q_lora_rank": None},
    "deepseek_v3": EXPERTS,
    "falcon": {"multi_query": True},
    "helium": {"head_dim": 32},
    "gpt_oss": {"num_local_experts": 8},
    "gpt_neox": {"intermediate_size": 512},
    "opt": {"ffn_dim": 512, "word_embed_proj_dim": 128},
    "qwen2_moe": {"num_experts": 8, "mlp_only_layers": [1]},
    "qwen3_moe": {"num_experts": 8, "decoder_sparse_step": 2},
}


@cache
def built(model_type: str) -> tuple[Model, Model]:
    """The model planned from its config, and from the tensors that Transformers gives it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {} if model_type in HAVE_OTHER_SIZES else SIZES
    config = AutoConfig.for_model(model_type, **(SMALL | sizes | CHANGES.get(model_type, {})))
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    told = json.loads(config.to_json_string(use_diff=True))
    tensors = tuple(Tensor(name, tuple(tensor.shape), "BF16") for name, tensor in whole.state_dict().items())
    return model_of("computed", told), model_of("read", told, tensors)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_tensors_are_those_of_transformers(model_type):
    computed, read = built(model_type)
    assert sum(tensor.num_elements for tensor in computed.tensors) == sum(tensor.num_elements for tensor in read.tensors)
    assert not [line for line in read.assumed if "on every rank" in line], "a name of the family's is not known to placement.py"


@pytest.mark.parametrize(("num_ranks", "num_stages"), [(1, 1), (2, 3), (8, 1)])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_rank_holds_the_same_by_any_names(model_type, num_ranks, num_stages):
    computed, read = built(model_type)
    layout = Layout(sharding_of(computed, num_ranks, quantization=None), num_stages)
    of_computed, of_read = (weights_bytes(model, layout, None, 2).estimate for model in (computed, read))
    assert of_computed == pytest.approx(of_read, rel=1e-3 if num_stages > 1 else 1e-12)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_int8_halves_the_same_layers_by_any_names(model_type):
    computed, read = built(model_type)
    layout = Layout(sharding_of(computed, 1, quantization="int8"))
    of_computed, of_read = (weights_bytes(model, layout, online_format("int8"), 2).estimate for model in (computed, read))
    # Transformers holds some weights as [in, out], whose rows are not the output channels that have scales.
    assert of_computed == pytest.approx(of_read, rel=0.02)
