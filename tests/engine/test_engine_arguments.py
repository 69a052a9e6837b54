"""The table of vLLM's arguments is what the installed vLLM says, and what settings make of it vLLM's own parser reads back."""

import subprocess
import sys
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs

from serving.engine.arguments_table import vllm_parser
from serving.engine_arguments import TABLE, Argument, engine_arguments, vllm_argv
from serving.settings import load_settings
from serving.settings_names import OWN, REFUSED


@pytest.fixture(scope="module")
def parser() -> Any:
    return vllm_parser()


def test_the_table_is_the_installed_vllms() -> None:
    written = subprocess.run([sys.executable, "-m", "serving.engine.arguments_table"], check=True, capture_output=True, text=True)
    assert written.stdout == TABLE.read_text(encoding="utf-8")


def test_every_engine_argument_is_in_the_table_but_those_without_a_flag() -> None:
    fields = {name for name in AsyncEngineArgs.__dataclass_fields__ if not name.startswith("_")}
    assert fields - engine_arguments().keys() == {"mamba_config", "model_weights", "enable_mm_processor_stats"}


def test_switches_and_choices_are_read_back_by_vllm(parser: Any) -> None:
    values = {name: _values(argument) for name, argument in engine_arguments().items() if name not in REFUSED.keys() | OWN.keys()}
    for turn in range(max(map(len, values.values()))):
        engine = {name: options[turn] for name, options in values.items() if turn < len(options)}
        args = parser.parse_args(vllm_argv(engine))
        assert {name: getattr(args, name) for name in engine} == engine


def _values(argument: Argument) -> list[Any]:
    if argument.kind in ("bool", "switch"):
        return [True, False]
    return [[choice] if argument.many else choice for choice in argument.choices]


@pytest.mark.parametrize(
    ("name", "text", "parsed"),
    [
        ("max_num_seqs", "7", 7),
        ("seed", "-1", -1),
        ("max_model_len", "8K", 8192),
        ("max_model_len", "auto", -1),
        ("kv_cache_memory_bytes", "1.5g", 1_500_000_000),
        ("gpu_memory_utilization", "0.5", 0.5),
        ("cpu_offload_gb", "4", 4.0),
        ("quantization", "None", None),
        ("quantization", "", None),
        ("revision", "-x", "-x"),
        ("moe_backend", "Deep-Gemm", "deep_gemm"),
        ("optimization_level", "3", "3"),
        ("hf_token", "true", True),
        ("hf_token", "false", None),
        ("hf_token", "hf_x", "hf_x"),
        ("served_model_name", "a b", ["a", "b"]),
        ("served_model_name", '["a b"]', ["a b"]),
        ("cudagraph_capture_sizes", "1 2", [1, 2]),
        ("numa_bind_cpus", "0-3,8 4-7", ["0-3,8", "4-7"]),
        ("device_ids", "0,GPU-x", [0, "GPU-x"]),
        ("hf_overrides", '{"a": {"b": 1}}', {"a": {"b": 1}}),
        ("hf_overrides", "module.function", "module.function"),
        ("speculative_config", '{"method": "ngram", "num_speculative_tokens": 2}', {"method": "ngram", "num_speculative_tokens": 2}),
        ("limit_mm_per_prompt", '{"image": 1k}', {"image": 1000}),
        ("default_chat_template_kwargs", '{"enable_thinking": false}', {"enable_thinking": False}),
    ],
)
def test_a_value_reaches_vllm_as_it_was_meant(parser: Any, name: str, text: str, parsed: Any) -> None:
    settings = load_settings([], {f"SM_VLLM_{name.upper()}": text})
    assert getattr(parser.parse_args(vllm_argv(settings.engine)), name) == parsed


def test_json_of_a_configuration_class_reaches_vllm(parser: Any) -> None:
    settings = load_settings(["-cc.cudagraph_capture_sizes+", "1,2", "--eplb-config", '{"window_size": 2k}'], {})
    args = parser.parse_args(vllm_argv(settings.engine))
    assert args.eplb_config.window_size == 2000
    assert settings.engine["compilation_config"] == {"cudagraph_capture_sizes": ["1", "2"]}


@pytest.mark.parametrize("text", ["a=/x b=/y", '[{"name": "a", "path": "/x"}, "b=/y"]'])
def test_lora_modules_reach_vllm(parser: Any, text: str) -> None:
    settings = load_settings([], {"TOKENPORT_LORA_MODULES": text})
    modules = parser.parse_args(vllm_argv(settings.engine)).lora_modules
    assert [(module.name, module.path) for module in modules] == [("a", "/x"), ("b", "/y")]
