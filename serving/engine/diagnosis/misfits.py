"""Models, settings and machines that do not go together, in the words of vLLM 0.32 and Transformers: what is wrong, what would be right."""

import ast
import re
from collections.abc import Sequence

from serving.engine.diagnosis.rule import Facts, Rule

DRIVER_ADVICE = "update the driver to 580 or later; on SageMaker set InferenceAmiVersion to al2023-ami-sagemaker-inference-gpu-4-1"
_SUPPORT = "take a release of Tokenport whose vLLM has it, or install a vLLM plugin that registers it"


def _heads(match: re.Match[str], _: Facts) -> str:
    heads = int(match[1])
    sizes = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
    return f"tensor_parallel_size={match[2]} cannot divide the model's {heads} attention heads; sizes that can: {sizes}"


def _indivisible(match: re.Match[str], facts: Facts) -> str:
    told = f"a dimension of {match[1]} cannot be divided by {match[2]}"
    if str(facts.engine.get("tensor_parallel_size", 1)) == match[2]:
        return f"tensor_parallel_size={match[2]} does not fit the model: {told}; set another tensor_parallel_size"
    return f"the model cannot be split as asked: {told}"


def _unknown_architecture(match: re.Match[str], _: Facts) -> str:
    try:
        names = [str(name) for name in ast.literal_eval(match[1])]
    except (ValueError, SyntaxError):
        names = [match[1]]
    return f"vLLM has no architecture {', '.join(names)} (`architectures` in config.json); {_SUPPORT}"


def _unknown_model_type(match: re.Match[str], _: Facts) -> str:
    return f"unknown architecture: Transformers has no model_type {match[1]} (config.json); {_SUPPORT}"


def _incompatible_architecture(match: re.Match[str], _: Facts) -> str:
    return f"vLLM has no architecture {match[1]}, and cannot run it through Transformers either; {_SUPPORT}"


def _quantization(match: re.Match[str], facts: Facts) -> str:
    rest = "serve the unquantized model, or use a GPU" if facts.on_cpu else "serve a checkpoint quantized in another way"
    return f"quantization {match[1]} does not run on this device ({match[2]}); {rest}"


def _too_few_gpus(match: re.Match[str], facts: Facts) -> str:
    sizes = [f"{name}={facts.engine[name]}" for name in ("tensor_parallel_size", "pipeline_parallel_size") if name in facts.engine]
    needed = f"{' x '.join(sizes) or 'the parallel sizes'} needs {match[1]} GPUs, {match[2]} visible"
    return f"not enough GPUs: {needed}; set smaller sizes or give the container more GPUs"


def _no_gpu(_: re.Match[str], __: Facts) -> str:
    how = "--gpus all (docker) or --device nvidia.com/gpu=all (podman)"
    return f"no GPU is visible: start the container with {how}, and see that nvidia-smi works in it"


def _old_driver(match: re.Match[str], _: Facts) -> str:
    return f"the NVIDIA driver is older than this build's CUDA needs{f' ({match[1]})' if match[1] else ''}: {DRIVER_ADVICE}"


def _small_shm(match: re.Match[str], _: Facts) -> str:
    return f"{match[1]} is too small: {match[2]} MiB needed at once, {match[3]} MiB free; start the container with --shm-size=1g or more"


def _long_context(match: re.Match[str], _: Facts) -> str:
    return f"max_model_len={match[1]} is more than the {float(match[3]):.0f} that the model was made for ({match[2]}); set at most that"


def _template(match: re.Match[str], _: Facts) -> str:
    return f"the chat template does not parse: {match[1]}; mend it, or name another with chat_template"


MISFIT_RULES: Sequence[Rule] = (
    (re.compile(r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)"), _heads),
    (re.compile(r"^(?:AssertionError: )?(\d+) is not divisible by (\d+)"), _indivisible),
    (re.compile(r"Model architectures (\[.*?\]) are not supported"), _unknown_architecture),
    (re.compile(r"has model type `([^`]+)` but Transformers does not recognize"), _unknown_model_type),
    (re.compile(r"The Transformers implementation of '([^']+)' is not compatible with vLLM"), _incompatible_architecture),
    (re.compile(r"(\S+) quantization is currently not supported in (\w+)"), _quantization),
    (re.compile(r"World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)"), _too_few_gpus),
    (re.compile(r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver"), _no_gpu),
    (
        re.compile(r"driver on your system is too old(?: \((found version \d+)\))?|(?:CUDA driver version is insufficient)"),
        _old_driver,
    ),
    (re.compile(r"Insufficient space in (\S+) for .*?: (\d+) MiB required, (\d+) MiB free"), _small_shm),
    (re.compile(r"max_model_len \((\d+)\) is greater than the derived max_model_len \((\w+)=([\d.]+)"), _long_context),
    (re.compile(r"^Template\w*Error: (.*)"), _template),
)
