"""What was compiled is found by the next start, which differs from the last by its socket."""

import pytest
import torch
from vllm.config import VllmConfig

from serving.engine.plugin import register
from serving.engine.progress import CONFIG_KEY

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def _plugin():
    register()


def hash_with(**additional: str) -> str:
    config = VllmConfig(additional_config=additional)
    found = config.compute_hash()
    assert config.additional_config == additional
    return found


def test_the_hash_of_the_configuration_is_that_of_the_last_start():
    assert hash_with(mine="1", **{CONFIG_KEY: "/tmp/a"}) == hash_with(mine="1", **{CONFIG_KEY: "/tmp/b"})


def test_what_the_user_adds_to_the_configuration_counts():
    assert hash_with(mine="1") != hash_with(mine="2")


def test_a_function_that_was_compiled_as_a_whole_is_complete_when_it_is_read(tmp_path):
    compiled = torch.compile(lambda x: x * 2 + 1, fullgraph=True, backend="inductor")
    compiled.aot_compile(((torch.ones(3),), {})).save_compiled_function(str(tmp_path / "compiled"))
    torch.compiler.reset()
    with (tmp_path / "compiled").open("rb") as file:
        read = torch.compiler.load_compiled_function(file)
    # What vLLM does with what it has read.
    read.disable_guard_check()
    read._artifacts.compiled_fn.finalize_loading(VllmConfig())
    assert read(torch.ones(3)).tolist() == [3.0, 3.0, 3.0]
