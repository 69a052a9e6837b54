"""How long a context may be: by the config's positions, and by what its rotary scaling does to them."""

import pytest

from serving.planner.memory.context_limit import default_context, longest_context
from tests.unit.planner.known_models import model


@pytest.mark.parametrize(
    ("changes", "longest", "default"),
    [
        ({}, 131072, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192, 8192),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 32768, 32768),
        ({"rope_scaling": {"rope_type": "longrope"}, "original_max_position_embeddings": 4096}, 131072, 4096),
        ({"model_max_length": 65536}, 65536, 65536),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072, 131072),
    ],
)
def test_positions_are_stretched_only_where_the_config_has_not_done_so(changes, longest, default):
    decoder = model("Llama-3.1-8B", **changes).decoder
    assert (longest_context(decoder), default_context(decoder)) == (longest, default)
