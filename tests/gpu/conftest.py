"""Tests that need NVIDIA GPUs: `make test-gpu`. Everywhere else they are skipped, with what is missing."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Server, start_server

_QUERY = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]


def num_gpus() -> int:
    if shutil.which(_QUERY[0]) is None:
        return 0
    answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30)
    return len(answer.stdout.split()) if answer.returncode == 0 else 0


@pytest.fixture(scope="session", autouse=True)
def gpus() -> int:
    """How many there are."""
    found = num_gpus()
    if not found:
        pytest.skip("no NVIDIA GPU: nvidia-smi is missing or lists none")
    return found


@pytest.fixture(scope="session")
def int8_server(gpus: int, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Server]:
    """The default model in INT8, quantised while it loads."""
    with start_server(tmp_path_factory.mktemp("int8"), cache_dir, TOKENPORT_QUANTIZATION="int8") as server:
        yield server
