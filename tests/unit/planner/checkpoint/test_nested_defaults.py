"""The decoder's config in a multimodal model's, as it is published: what it leaves out is its class's default, and is said to be."""

import pytest

from serving.errors import PlanError
from serving.planner.checkpoint.nested_defaults import _defaults, completed
from serving.planner.model import model_of

# The text_config of llava-hf/llava-1.5-7b-hf and of google/gemma-3-4b-it, and the language model's numbers.
LLAVA = {"model_type": "llava", "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}}
GEMMA = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
}


@pytest.mark.parametrize("model_type", _defaults())
def test_the_defaults_are_those_of_transformers(model_type):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    of_class = CONFIG_MAPPING[model_type]
    assert {name: getattr(of_class, name) for name in _defaults()[model_type]} == _defaults()[model_type]
    _, assumed = completed(of_class().to_dict())
    assert not assumed, "a default is of a field that the class does not have"


def test_published_multimodal_models_are_planned():
    llava, gemma = model_of("llava", LLAVA), model_of("gemma", GEMMA)
    assert sum(tensor.num_elements for tensor in llava.tensors) == 6_738_939_904
    assert sum(tensor.num_elements for tensor in gemma.tensors) == 3_880_263_168
    assert (gemma.shape.num_heads, gemma.shape.num_kv_heads, gemma.shape.head_dim, gemma.shape.vocab_size) == (8, 4, 256, 262208)
    assert gemma.assumed[-1] == (
        "num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=262208, max_position_embeddings=131072: "
        "left out of the decoder's config, so the defaults of gemma3_text's"
    )


def test_what_is_told_is_kept_and_null_is_told():
    assert completed({"model_type": "mistral", "sliding_window": None, "hidden_size": 5120})[0]["sliding_window"] is None
    assert completed({"model_type": "mistral", "sliding_window": None, "hidden_size": 5120})[0]["hidden_size"] == 5120


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_the_decoder_is_found_under_any_of_its_names(name):
    assert model_of("m", {"model_type": "wrapper", name: LLAVA["text_config"]}).shape.num_layers == 32


def test_a_config_of_its_own_leaves_nothing_out():
    with pytest.raises(PlanError, match=r"config\.json: num_hidden_layers is missing"):
        model_of("m", LLAVA["text_config"])
