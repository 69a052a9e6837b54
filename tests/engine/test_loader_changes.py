"""What is changed in vLLM's loaders, with vLLM's own classes: no pickle is read unasked, and every loader tells of its progress."""

import json
import socket
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


@pytest.fixture
def loader():
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from serving.engine.plugin import register

    register()
    return lambda load_format: DefaultModelLoader(LoadConfig(load_format=load_format))


def files_of(loader, folder: Path, additional_config: dict) -> list[str]:
    from vllm.config import VllmConfig, set_current_vllm_config

    with set_current_vllm_config(VllmConfig(additional_config=additional_config)):
        return [Path(file).name for file in loader._prepare_weights(str(folder), None, None, True, None)[1]]


@pytest.mark.parametrize("load_format", ["auto", "hf"])
def test_vllm_does_not_fall_back_to_pickles(tmp_path, loader, load_format):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="as pickles only") as caught:
        files_of(loader(load_format), tmp_path, {})
    assert "--load-format pt" in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert files_of(loader(load_format), tmp_path, {}) == ["model.safetensors"]


def test_pickles_that_were_asked_for_are_read(tmp_path, loader):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    assert files_of(loader("hf"), tmp_path, {"tokenport_pickles": True}) == ["pytorch_model.bin"]


def test_every_loader_tells_that_it_loads(tmp_path, loader, monkeypatch):
    from vllm.config import VllmConfig
    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER
    from vllm.model_executor.model_loader.weight_cache.protocol import UnsupportedPlatformForIPCError

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "progress"))
        listener.settimeout(5)
        config = VllmConfig(additional_config={"tokenport_progress_socket": str(tmp_path / "progress")})
        for owner in set(_LOAD_FORMAT_TO_MODEL_LOADER.values()):
            # Without a model each fails in its own way, after it has told.
            with pytest.raises((AttributeError, UnsupportedPlatformForIPCError)):
                owner.load_model(None, config, None)
            assert json.loads(listener.recv(1000))["phase"] == "loading weights", owner
