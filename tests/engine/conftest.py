"""What tests of the real engine share."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine without processes of its own, cleared away after each test."""
    from vllm.distributed import cleanup_dist_env_and_memory

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    yield
    cleanup_dist_env_and_memory()
