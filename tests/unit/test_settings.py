"""What a process runs with, and what it refuses to run with, whichever way it was told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.engine_arguments import Argument, engine_arguments, flag_of
from serving.errors import SettingsError
from serving.settings import Settings, describe, load_settings
from serving.settings_names import OWN, REFUSED


def load(*argv: str, **environ: str) -> Settings:
    return load_settings(argv, {"HOME": "/home/user"} | environ)


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*argv, **environ)
    return str(caught.value)


def config(**settings: Any) -> str:
    return json.dumps(settings)


def test_nothing_set_gives_the_defaults() -> None:
    settings = load()
    assert (settings.model, settings.host, settings.port, settings.log_level) == (None, "127.0.0.1", 8080, "info")
    assert (settings.log_requests, settings.embedded_model, settings.api_key, settings.drain_s) == (False, True, (), 25.0)
    assert settings.cache_dir == Path("/home/user/.cache/tokenport")
    assert dict(settings.engine) == {}
    assert set(settings.sources.values()) == {"default"}


def test_settings_cannot_be_changed() -> None:
    settings = load()
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.engine["seed"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/tokenport"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/user/.cache/tokenport"),
        ({"XDG_CACHE_HOME": ""}, "/home/user/.cache/tokenport"),
        ({"TOKENPORT_CACHE_DIR": "~/models"}, "/home/user/models"),
        ({"TOKENPORT_CACHE_DIR": "/cache", "XDG_CACHE_HOME": "/xdg"}, "/cache"),
    ],
)
def test_cache_dir(environ: dict[str, str], expected: str) -> None:
    assert load(**environ).cache_dir == Path(expected)


def test_each_source_outranks_the_ones_before_it() -> None:
    steps: list[tuple[list[str], dict[str, str], str]] = [
        ([], {"TOKENPORT_CONFIG": config(port=1, tensor_parallel_size=1)}, "TOKENPORT_CONFIG"),
        ([], {"SAGEMAKER_BIND_TO_PORT": "2", "SM_NUM_GPUS": "2"}, "SAGEMAKER_BIND_TO_PORT"),
        ([], {"OPTION_PORT": "3", "OPTION_TENSOR_PARALLEL_DEGREE": "3"}, "OPTION_PORT"),
        ([], {"SM_VLLM_PORT": "4", "SM_VLLM_TENSOR_PARALLEL_SIZE": "4"}, "SM_VLLM_PORT"),
        ([], {"TOKENPORT_PORT": "5", "TOKENPORT_TENSOR_PARALLEL_SIZE": "5"}, "TOKENPORT_PORT"),
        (["--port", "6", "-tp", "6"], {}, "--port"),
    ]
    argv: list[str] = []
    environ: dict[str, str] = {}
    for rank, (words, variables, source) in enumerate(steps, start=1):
        argv += words
        environ |= variables
        settings = load(*argv, **environ)
        assert (settings.port, settings.engine["tensor_parallel_size"], settings.sources["port"]) == (rank, rank, source)


def test_config_on_the_command_line_outranks_the_variable() -> None:
    settings = load("--config", config(port=1), TOKENPORT_CONFIG=config(port=2, seed=2))
    assert (settings.port, dict(settings.engine), settings.sources["port"]) == (1, {}, "--config")


@pytest.mark.parametrize(
    ("argv", "environ", "source"),
    [
        (["org/m"], {}, "command line"),
        (["--model", "org/m"], {}, "--model"),
        ([], {"HF_MODEL_ID": "org/m"}, "HF_MODEL_ID"),
        ([], {"HF_MODEL_ID": "no", "OPTION_MODEL_ID": "org/m"}, "OPTION_MODEL_ID"),
        ([], {"OPTION_MODEL_ID": "no", "SM_VLLM_MODEL": "org/m"}, "SM_VLLM_MODEL"),
        ([], {"SM_VLLM_MODEL": "no", "TOKENPORT_MODEL": "org/m"}, "TOKENPORT_MODEL"),
    ],
)
def test_the_model_is_named_as_in_other_containers(argv: list[str], environ: dict[str, str], source: str) -> None:
    settings = load(*argv, **environ)
    assert (settings.model, settings.sources["model"]) == ("org/m", source)


SIMPLE = [
    argument
    for name, argument in engine_arguments().items()
    if name not in REFUSED
    and name not in OWN
    and name not in ("enable_log_requests", "enable_log_outputs")  # these need log_requests
    and not argument.many
    and argument.kind in ("bool", "switch", "int", "size", "size_or_auto", "float", "str", "folded")
]


def values_of(argument: Argument) -> st.SearchStrategy[Any]:
    if argument.choices:
        return st.sampled_from(argument.choices)
    by_kind: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "switch": st.booleans(),
        "float": st.floats(allow_nan=False, allow_infinity=False),
        "str": st.from_regex(r"[A-Za-z][A-Za-z0-9_/.:-]{0,20}", fullmatch=True).filter(lambda text: text != "None"),
    }
    return by_kind.get(argument.kind, st.integers(min_value=0, max_value=2**40))


@pytest.mark.parametrize("argument", SIMPLE, ids=lambda argument: argument.name)
@hypothesis_settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_an_engine_argument_means_the_same_in_every_source(argument: Argument, data: st.DataObject) -> None:
    value = data.draw(values_of(argument))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    name = argument.name
    told = [
        load(TOKENPORT_CONFIG=config(**{name: value})),
        *(load(**{prefix + name.upper(): text}) for prefix in ("OPTION_", "SM_VLLM_", "TOKENPORT_")),
        load(flag_of(name), text) if not isinstance(value, bool) else load(f"{flag_of(name)}={text}"),
        load(f"--{name}={text}"),
    ]
    for settings in told:
        assert dict(settings.engine) == {name: value}
        assert type(settings.engine[name]) is type(value)
        assert name in settings.sources


def test_false_switches_a_feature_off_that_is_on_by_default() -> None:
    for environ in (
        {"SM_VLLM_ENABLE_PREFIX_CACHING": "false"},
        {"OPTION_ENABLE_PREFIX_CACHING": "False"},
        {"SM_VLLM_NO_ENABLE_PREFIX_CACHING": "true"},
    ):
        assert load(**environ).engine == {"enable_prefix_caching": False}
    assert load("--no-enable-prefix-caching").engine == {"enable_prefix_caching": False}


def test_a_file_holds_json_objects_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "tokenport.yaml"
    path.write_text("model: org/m\nmax-model-len: 8k\napi_key: [a, b]\nhf_overrides:\n  rope: {factor: 2}\nserved_model_name: [x, y]\n")
    settings = load(TOKENPORT_CONFIG=str(path))
    assert settings.engine == {"max_model_len": 8000, "hf_overrides": {"rope": {"factor": 2}}, "served_model_name": ["x", "y"]}
    assert (settings.model, settings.api_key, settings.sources["max_model_len"]) == ("org/m", ("a", "b"), f"file {path}")


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (["--api-key", "a,b"], {}),
        (["--api-key", "a", "b"], {}),
        (["--api-key", "a", "--api-key", "b"], {}),
        ([], {"TOKENPORT_API_KEY": "a,b"}),
        ([], {"SM_VLLM_API_KEY": "a b"}),
    ],
)
def test_api_keys_are_separated_by_commas_or_repeated(argv: list[str], environ: dict[str, str]) -> None:
    assert load(*argv, **environ).api_key == ("a", "b")


@pytest.mark.parametrize(
    ("argv", "environ", "text"),
    [
        (["a", "--model", "b"], {}, "the model and --model disagree: 'a' and 'b'; keep one"),
        (["--port", "1", "--port", "2"], {}, "--port is given twice: 1 and 2; keep one"),
        ([], {"OPTION_QUANTIZE": "fp8", "OPTION_QUANTIZATION": "awq"}, "OPTION_QUANTIZATION and OPTION_QUANTIZE disagree: 'awq' and 'fp8'"),
    ],
)
def test_two_values_of_one_setting_in_one_source_are_refused(argv: list[str], environ: dict[str, str], text: str) -> None:
    assert refusal(*argv, **environ).startswith(text)


def test_saying_the_same_twice_is_no_contradiction() -> None:
    assert load("m", "--model", "m", "--max-model-len", "1000", "--max_model_len", "1k").engine == {"max_model_len": 1000}


def test_secrets_are_in_no_error_and_no_table() -> None:
    assert "sk-1" not in refusal(TOKENPORT_API_KEY="sk-1,")
    assert "sk-1" not in refusal("--hf-token=sk-1", "--hf-token=sk-2")
    assert "sk-1" not in refusal(SM_VLLM_KV_TRANSFER_CONFIG='{"kv_password": "sk-1"')
    settings = load(
        "--api-key=sk-1",
        "--hf-token=sk-1",
        "--otlp-traces-endpoint=http://me:sk-1@host:4317",
        '--kv-transfer-config={"extra": {"secret_key": "sk-1", "urls": ["redis://:sk-1@host"], "max_tokens": 5}}',
    )
    shown = {name: value for name, value, _ in describe(settings)}
    assert shown["api_key"] == shown["hf_token"] == "***"
    assert shown["otlp_traces_endpoint"] == "http://***@host:4317"
    assert shown["kv_transfer_config"] == '{"extra": {"secret_key": "***", "urls": ["redis://***@host"], "max_tokens": 5}}'
    assert "sk-1" not in repr(settings)


def test_describe_has_a_row_for_each_setting_with_its_source() -> None:
    rows = describe(load("m", "--seed", "1", SM_VLLM_ENFORCE_EAGER="true"))
    assert [name for name, _, _ in rows] == [*OWN, "seed", "enforce_eager"]
    assert rows[0] == ("model", "m", "command line")
    assert ("port", "8080", "default") in rows
    assert ("api_key", "", "default") in rows
    assert ("enforce_eager", "true", "SM_VLLM_ENFORCE_EAGER") in rows


def test_describe_all_adds_what_vllm_defaults_to() -> None:
    rows = describe(load("--seed", "1"), all=True)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names))
    assert set(names) == OWN.keys() | engine_arguments().keys() - REFUSED.keys()
    assert ("gpu_memory_utilization", "0.92", "default") in rows


def test_settings_do_not_import_the_engine() -> None:
    code = "import sys, serving.settings as s; s.load_settings([], {}); sys.exit(bool({'vllm', 'torch', 'yaml'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environ", "deadline_s"),
    [
        ({}, 0.0),
        ({"SAGEMAKER_BIND_TO_PORT": "8080"}, 55.0),
        ({"SAGEMAKER_REGION": "eu-west-1", "SAGEMAKER_BATCH": "true"}, 0.0),
        ({"SAGEMAKER_REGION": "eu-west-1", "TOKENPORT_DEADLINE_S": "900"}, 900.0),
        ({"SAGEMAKER_REGION": "eu-west-1", "TOKENPORT_DEADLINE_S": "0"}, 0.0),
    ],
)
def test_an_answer_has_a_deadline_where_sagemaker_would_give_up(environ, deadline_s):
    assert load_settings([], environ).deadline_s == deadline_s
