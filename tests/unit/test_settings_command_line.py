"""Every way vLLM's command line is written, and none more."""

from typing import Any

import pytest

from serving.errors import SettingsError
from serving.settings import load_settings, vllm_argv


@pytest.mark.parametrize(
    ("words", "engine"),
    [
        ("--max-model-len 4096", {"max_model_len": 4096}),
        ("--max_model_len=4096", {"max_model_len": 4096}),
        ("--max-model-len -1", {"max_model_len": -1}),
        ("-tp 2", {"tensor_parallel_size": 2}),
        ("-tp=2", {"tensor_parallel_size": 2}),
        ("--tensor-parallel-size auto", {"tensor_parallel_size": "auto"}),
        ("--enforce-eager", {"enforce_eager": True}),
        ("--enforce-eager=false", {"enforce_eager": False}),
        ("--enforce-eager false", {"enforce_eager": False}),
        ("--no-enforce-eager", {"enforce_eager": False}),
        ("--no_enforce_eager", {"enforce_eager": False}),
        ("--disable-log-stats=false", {"disable_log_stats": False}),
        ("-ep", {"enable_expert_parallel": True}),
        ("-O3", {"optimization_level": "3"}),
        ("-O=3", {"optimization_level": "3"}),
        ("-O 3", {"optimization_level": "3"}),
        ("--served-model-name a b", {"served_model_name": ["a", "b"]}),
        ('--served-model-name ["a"]', {"served_model_name": ["a"]}),
        ("--cudagraph-capture-sizes=8", {"cudagraph_capture_sizes": [8]}),
        ("--device-ids 0,1", {"device_ids": [0, 1]}),
        ("--hf-token", {"hf_token": True}),
        ("--hf-token --enforce-eager", {"hf_token": True, "enforce_eager": True}),
        ("--chat-template=-x", {"chat_template": "-x"}),
        ("--device-memory-utilization 0.5", {"gpu_memory_utilization": 0.5}),
        ("--compilation-config.mode 3", {"compilation_config": {"mode": 3}}),
        ("-cc.mode=3 -cc.a.b x --compilation_config.a.c=1k", {"compilation_config": {"mode": 3, "a": {"b": "x", "c": 1000}}}),
        ("--compilation-config.ops+ a,b --compilation-config.ops+=c", {"compilation_config": {"ops": ["a", "b", "c"]}}),
    ],
)
def test_vllms_command_line_is_understood(words: str, engine: dict[str, Any]) -> None:
    assert dict(load_settings(words.split(), {}).engine) == engine


def test_a_word_of_several_may_hold_a_space() -> None:
    assert load_settings(["--served-model-name", "my model"], {}).engine == {"served_model_name": ["my model"]}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--max-modl-len 1", "--max-modl-len is not a setting; did you mean --max-model-len?"),
        ("--max-model 1", "--max-model is not a setting; did you mean --max-model-len?"),
        ("--no-enforce-eagr", "--no-enforce-eagr is not a setting; did you mean --no-enforce-eager?"),
        ("--no-seed", "--no-seed is not a setting; did you mean"),
        ("-tx 2", "-tx is not a setting; did you mean -tp?"),
        ("-1", "-1 is not a setting"),
        ("--uds /x", "--uds: vLLM's uds cannot be set: it belongs to vLLM's own HTTP server"),
        ("-asc 2", "-asc: vLLM's api_server_count cannot be set"),
        ("--seed", "--seed needs a value; one that begins with a dash is written --seed=VALUE"),
        ("--seed --enforce-eager", "--seed needs a value"),
        ("--served-model-name", "--served-model-name needs a value"),
        ("--no-enforce-eager=true", "--no-enforce-eager takes no value; write --enforce-eager=true"),
        ("--seed=", "--seed: expected an integer, got ''; to leave it at its default, unset it"),
        ("--seed.a 1", "--seed.a: seed is not a JSON object and has no keys"),
        ("-cc {} -cc.mode 3", "-cc and --compilation-config.* are both given; write the object in one way"),
        ("-cc.mode 3 -cc.mode 2", "-cc.mode: mode has a value already"),
        ("-cc.mode 3 -cc.mode.x 2", "-cc.mode.x: mode has a value already"),
        ("--config a.yaml --config b.yaml", "--config is given twice; name one file"),
        ("a b", "the model is given twice: 'a' and 'b'; keep one"),
    ],
)
def test_a_wrong_command_line_is_refused_by_the_flag_as_written(words: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(words.split(), {})
    assert str(caught.value).startswith(text)


def test_the_way_back_to_words() -> None:
    engine = {
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "disable_log_stats": False,
        "max_model_len": 4096,
        "hf_overrides": {"a": 1},
        "device_ids": [0, 1],
        "served_model_name": ["a", "b"],
        "chat_template": "-x",
        "hf_token": True,
        "quantization": None,
    }
    assert vllm_argv(engine) == [
        *("--no-enable-prefix-caching", "--enforce-eager", "--max-model-len", "4096", "--hf-overrides", '{"a": 1}'),
        *("--device-ids", "0,1", "--served-model-name", "a", "b", "--chat-template=-x", "--hf-token", "--quantization", "None"),
    ]
    with pytest.raises(KeyError):
        vllm_argv({"max_modl_len": 1})
