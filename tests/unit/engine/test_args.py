import pytest

from serving.engine.args import cpu_defaults, engine_arguments, num_ranks
from serving.errors import SettingsError


def arguments(user, device_defaults=None, log_requests=False):
    return engine_arguments(
        user,
        model="/models/m",
        served_name="m",
        device_defaults=device_defaults or {},
        progress_socket="/run/p",
        log_requests=log_requests,
        drain_s=2.5,
    )


def test_what_the_user_set_wins_over_the_device_and_the_general_defaults():
    chosen = arguments({"dtype": "float32", "served_model_name": ["a", "b"]}, {"dtype": "bfloat16", "enforce_eager": True})
    assert chosen["dtype"] == "float32"
    assert chosen["served_model_name"] == ["a", "b"]
    assert chosen["enforce_eager"] is True


def test_the_model_and_the_progress_socket_are_not_the_users_to_change():
    chosen = arguments({"additional_config": {"mine": 1}})
    assert chosen["model"] == "/models/m"
    assert chosen["additional_config"] == {"mine": 1, "tokenport_progress_socket": "/run/p"}


def test_additional_config_must_be_an_object():
    with pytest.raises(SettingsError, match=r"additional_config: \[1\]"):
        arguments({"additional_config": [1]})


def test_requests_are_logged_only_when_told_to():
    assert "enable_log_requests" not in arguments({})
    assert arguments({}, log_requests=True)["enable_log_outputs"] is True


def test_one_cpu_rank_runs_inside_the_engine_core():
    assert cpu_defaults({}, 0.5)["distributed_executor_backend"].endswith("InProcessExecutor")
    assert "distributed_executor_backend" not in cpu_defaults({"tensor_parallel_size": 2}, 0.5)


def test_an_explicit_kv_cache_size_needs_no_memory_fraction():
    assert cpu_defaults({}, 0.5)["gpu_memory_utilization"] == 0.5
    assert "gpu_memory_utilization" not in cpu_defaults({"kv_cache_memory_bytes": 1}, 0.5)


def test_ranks_are_the_product_of_both_parallel_sizes():
    assert num_ranks({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}) == 6
    assert num_ranks({"tensor_parallel_size": "auto", "pipeline_parallel_size": 3}) == 3
