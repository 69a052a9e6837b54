"""How long a context may be: by the config's positions, and by what its rotary scaling does to them."""

from types import SimpleNamespace

import pytest

from serving.planner.memory.context_limit import default_context, longest_context
from tests.unit.planner.known_models import model

BY_KIND = {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}}


@pytest.mark.parametrize(
    ("changes", "longest", "default"),
    [
        ({}, 131072, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192, 8192),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 32768, 32768),
        ({"rope_scaling": {"rope_type": "longrope"}, "original_max_position_embeddings": 4096}, 131072, 4096),
        ({"model_max_length": 65536}, 65536, 65536),
        ({"n_positions": 2048}, 2048, 2048),
        ({"max_position_embeddings": None}, 2048, 2048),
        ({"max_position_embeddings": None, "max_sequence_length": 16384}, 16384, 16384),
        ({"max_position_embeddings": 8192, "rope_parameters": BY_KIND}, 65536, 65536),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072, 131072),
    ],
)
def test_positions_are_stretched_only_where_the_config_has_not_done_so(changes, longest, default):
    decoder = model("Llama-3.1-8B", **changes).decoder
    assert (longest_context(decoder), default_context(decoder)) == (longest, default)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_positions": 2048, "seq_length": 4096},
        {"model_max_length": 65536},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "longrope"}, "original_max_position_embeddings": 4096},
        {"rope_parameters": BY_KIND},
        {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear", "factor": 8.0}},
    ],
)
def test_the_context_is_the_one_that_vllm_takes(changes):
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    decoder = model("Llama-3.1-8B", **changes).decoder
    config = SimpleNamespace(**decoder)
    of_vllm = SimpleNamespace(derived_max_model_len_and_key=ModelArchConfigConvertorBase(config, config).derive_max_model_len_and_key())

    def settled(asked: int | None) -> int:
        return _get_and_verify_max_len(config, of_vllm, None, asked, disable_sliding_window=False, sliding_window=None)

    assert settled(None) == default_context(decoder)
    assert settled(longest_context(decoder)) == longest_context(decoder)
    with pytest.raises(ValueError, match="greater than the derived max_model_len"):
        settled(longest_context(decoder) + 1)
