"""Names as other containers write them, files, and what is said to a name that is unknown or refused."""

from pathlib import Path
from typing import Any

import pytest

from serving.engine_arguments import engine_arguments
from serving.errors import SettingsError
from serving.settings import load_settings
from serving.settings_names import LMI_MODES, LMI_NAMES, OWN, PLAIN, REFUSED, settable


def engine(**environ: str) -> dict[str, Any]:
    return dict(load_settings([], environ).engine)


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings([], environ)
    return str(caught.value)


def test_every_name_stands_for_a_setting_there_is() -> None:
    assert REFUSED.keys() <= engine_arguments().keys()
    assert not REFUSED.keys() & OWN.keys()
    assert set(LMI_NAMES.values()) | set(PLAIN.values()) <= settable().keys()
    assert not LMI_MODES.keys() & settable().keys()


@pytest.mark.parametrize("prefix", ["OPTION_", "SM_VLLM_", "TOKENPORT_"])
@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"config"}))
def test_what_could_not_be_honoured_is_refused_with_the_reason(prefix: str, name: str) -> None:
    variable = prefix + name.upper()
    assert refusal(**{variable: "1"}) == f"{variable}: vLLM's {name} cannot be set: {REFUSED[name]}"


def test_a_config_file_is_named_with_tokenports_variable_only() -> None:
    for prefix in ("OPTION_", "SM_VLLM_"):
        assert refusal(**{f"{prefix}CONFIG": "x.yaml"}).endswith("name the file with TOKENPORT_CONFIG or --config")
    assert refusal(TOKENPORT_CONFIG="config: x.yaml").startswith("key config in TOKENPORT_CONFIG: vLLM's config cannot be set")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("OPTION_TENSOR_PARALLEL_DEGREE", "4", {"tensor_parallel_size": 4}),
        ("OPTION_PIPELINE_PARALLEL_DEGREE", "2", {"pipeline_parallel_size": 2}),
        ("OPTION_MAX_ROLLING_BATCH_SIZE", "64", {"max_num_seqs": 64}),
        ("OPTION_MAX_ROLLING_BATCH_PREFILL_TOKENS", "8192", {"max_num_batched_tokens": 8192}),
        ("OPTION_QUANTIZE", "fp8", {"quantization": "fp8"}),
        ("OPTION_CPU_OFFLOAD_GB_PER_GPU", "4", {"cpu_offload_gb": 4.0}),
        ("OPTION_DTYPE", "fp16", {"dtype": "float16"}),
        ("OPTION_DTYPE", "bf16", {"dtype": "bfloat16"}),
        ("OPTION_DTYPE", "fp32", {"dtype": "float32"}),
        ("OPTION_DTYPE", "auto", {"dtype": "auto"}),
        ("OPTION_TRUST_REMOTE_CODE", "true", {"trust_remote_code": True}),
        ("OPTION_ROLLING_BATCH", "vllm", {}),
        ("OPTION_ROLLING_BATCH", "disable", {}),
        ("OPTION_ASYNC_MODE", "true", {}),
        ("OPTION_MPI_MODE", "false", {}),
        ("OPTION_ENGINE", "Python", {}),
        ("OPTION_ENTRYPOINT", "djl_python.lmi_vllm.vllm_async_service", {}),
        ("SM_NUM_GPUS", "2", {"tensor_parallel_size": 2}),
        ("SM_NUM_GPUS", "auto", {"tensor_parallel_size": "auto"}),
        ("OPTION_TENSOR_PARALLEL_DEGREE", "Auto", {"tensor_parallel_size": "auto"}),
        ("SM_VLLM_DEVICE_MEMORY_UTILIZATION", "0.5", {"gpu_memory_utilization": 0.5}),
    ],
)
def test_names_of_other_containers(variable: str, value: str, expected: dict[str, Any]) -> None:
    assert engine(**{variable: value}) == expected


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("OPTION_ROLLING_BATCH", "trtllm", "expected auto or vllm or disable, which is how Tokenport runs, got 'trtllm'; unset it"),
        ("OPTION_ASYNC_MODE", "false", "expected true, which is how Tokenport runs, got 'false'; unset it"),
        ("OPTION_MPI_MODE", "true", "expected false, which is how Tokenport runs, got 'true'; unset it"),
        ("OPTION_ENGINE", "MPI", "expected python, which is how Tokenport runs, got 'MPI'; unset it"),
        (
            "OPTION_TENSOR_PARALLEL_DEGREE",
            "max",
            "got 'max'; write the number of GPUs instead of max, or auto for the fewest that hold the model",
        ),
        ("OPTION_DTYPE", "int8", "expected one of auto, bfloat16, float, float16, float32, half, got 'int8'"),
        ("TOKENPORT_SEED", "", "expected an integer, got ''; to leave it at its default, unset it instead of leaving it empty"),
        ("TOKENPORT_NO_ENFORCE_EAGER", "false", "expected true, got 'false'; to switch it on, set enforce_eager"),
        ("TOKENPORT_CONFIG", "/nowhere.yaml", "No such file or directory"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_by_its_variable(variable: str, value: str, text: str) -> None:
    message = refusal(**{variable: value})
    assert message.startswith(variable)
    assert message.endswith(text)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"TOKENPORT_MAX_MODEL_LENN": "1"}, "TOKENPORT_MAX_MODEL_LENN is not a setting; did you mean TOKENPORT_MAX_MODEL_LEN?"),
        ({"SM_VLLM_MAX_MODL_LEN": "1"}, "SM_VLLM_MAX_MODL_LEN is not a setting; did you mean SM_VLLM_MAX_MODEL_LEN?"),
        (
            {"OPTION_MAX_ROLING_BATCH_SIZE": "1"},
            "OPTION_MAX_ROLING_BATCH_SIZE is not a setting; did you mean OPTION_MAX_ROLLING_BATCH_SIZE?",
        ),
        ({"TOKENPORT_QUANTIZE": "fp8"}, "TOKENPORT_QUANTIZE is not a setting; did you mean TOKENPORT_QUANTIZATION?"),
        ({"SM_VLLM_DRAIN_S": "1"}, "SM_VLLM_DRAIN_S is not a setting; did you mean TOKENPORT_DRAIN_S?"),
        ({"TOKENPORT_ZZZZZZZZZZ": "1"}, "TOKENPORT_ZZZZZZZZZZ is not a setting"),
        ({"TOKENPORT_CONFIG": "max_modl_len: 1"}, "key max_modl_len in TOKENPORT_CONFIG is not a setting; did you mean max_model_len?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(environ: dict[str, str], text: str) -> None:
    assert refusal(**environ) == text


def test_variables_of_others_are_left_alone() -> None:
    assert engine(PORT="1", VLLM_LOGGING_LEVEL="DEBUG", SAGEMAKER_REGION="eu-west-1", TENSOR_PARALLEL_DEGREE="max", HF_HOME="/x") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_modl_len: 1", "key max_modl_len in the file {path} is not a setting; did you mean max_model_len?"),
        ("seed: one", "key seed in the file {path}: expected an integer, got 'one'"),
        ("seed: null", "key seed in the file {path}: expected an integer, got None; leave the key out instead of null"),
        ("revision: 12", "key revision in the file {path}: expected a string, got 12; write it in quotes"),
        ("seed: 1\nseed: 2", "the file {path}: the key seed is there twice"),
        ('{"seed": 1, "seed": 2}', "the file {path}: the key seed is there twice"),
        ("hf_overrides: {a: 1, a: 2}", "the file {path}: the key a is there twice"),
        ("- seed", "the file {path}: expected settings as `name: value`, got list"),
        ("{[a]: 1}", "the file {path}, line 1: found unhashable key"),
        ("seed: [", "the file {path}, line 1: "),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert refusal(TOKENPORT_CONFIG=str(path)).startswith(message.format(path=path))


@pytest.mark.parametrize("text", ["seed: 1", '{"seed": 1}', "{seed: 1}", '{\n\t"seed": 1\n}', "seed: 1\ndtype: auto"])
def test_a_config_can_be_a_text_itself(text: str) -> None:
    assert engine(TOKENPORT_CONFIG=text)["seed"] == 1


def test_an_empty_file_sets_nothing_and_an_empty_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert load_settings([], {"HOME": str(tmp_path), "TOKENPORT_CONFIG": "~/empty.yaml"}).engine == {}
    assert refusal(TOKENPORT_CONFIG="") == "TOKENPORT_CONFIG is empty: name a file, or unset it"
