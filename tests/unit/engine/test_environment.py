from pathlib import Path

import pytest

from serving.engine.environment import engine_environment
from serving.settings import load_settings


@pytest.fixture
def environment_of(tmp_path):
    def build(environ=None, *, is_local_model=True, **settings):
        given = environ or {}
        loaded = load_settings([], {"TOKENPORT_CACHE_DIR": "/cache", **settings})
        return engine_environment(loaded, given, is_local_model=is_local_model, allowed_cpus=[0, 1], run_folder=Path("/run/x"))

    return build


def test_nothing_phones_home(environment_of):
    environment = environment_of()
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["DO_NOT_TRACK"] == "1"


def test_a_local_model_needs_no_hub_and_a_hub_id_does(environment_of):
    assert environment_of()["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment_of(is_local_model=False)


def test_sockets_and_logging_are_in_the_folder_that_goes_with_the_process(environment_of):
    environment = environment_of()
    assert environment["VLLM_RPC_BASE_PATH"] == "/run/x"
    assert environment["VLLM_LOGGING_CONFIG_PATH"] == "/run/x/logging.json"


def test_what_the_user_set_stands(environment_of):
    environment = environment_of({"VLLM_CACHE_ROOT": "/mine", "PYTHONWARNINGS": "default"})
    assert "VLLM_CACHE_ROOT" not in environment
    assert "PYTHONWARNINGS" not in environment


def test_warnings_are_shown_at_debug_only(environment_of):
    assert environment_of()["PYTHONWARNINGS"] == "ignore"
    assert "PYTHONWARNINGS" not in environment_of(TOKENPORT_LOG_LEVEL="debug")


def test_nothing_is_compiled_where_the_engine_is_eager(environment_of):
    assert environment_of()["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in environment_of(TOKENPORT_ENFORCE_EAGER="false")
    assert "TORCH_COMPILE_DISABLE" not in environment_of({"TORCH_COMPILE_DISABLE": "0"})


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_streamer_finds_the_s3_that_boto3_finds(environment_of, name):
    environment = environment_of({name: "http://s3:9000"})
    assert environment["RUNAI_STREAMER_S3_ENDPOINT"] == "http://s3:9000"
    assert environment["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] == "0"
    assert "RUNAI_STREAMER_S3_ENDPOINT" not in environment_of()
    assert "RUNAI_STREAMER_S3_ENDPOINT" not in environment_of({name: "http://s3:9000", "RUNAI_STREAMER_S3_ENDPOINT": "http://mine"})
