"""Pure: what vLLM, torch and the kernel said about a failure -> one line that a person can act on.

Steps: each exception as one line (`text_of`), the one among them that caused the others (`root_cause`), then a table from the texts of
vLLM 0.32 and torch 2.13 to sentences that say what is needed, what is there and what to set. What is not in the table is told as it came.
"""

import ast
import re
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MAX_CHARS = 500
# Their texts say what is wrong by themselves; of others ("'foo'", "list index out of range") the class is half of the message.
_TELLING = (
    "ValueError",
    "RuntimeError",
    "Exception",
    "OSError",
    "OutOfMemoryError",
    "StartError",
    "VLLMValidationError",
    "ValidationError",
)


@dataclass(frozen=True)
class Facts:
    """What is known beside the texts. `oom_killed`: whether the kernel's OOM killer ended one of our processes, None if that cannot be
    read; `memory_limit_bytes`: the container's, None without one; `engine`: vLLM's arguments that the user set."""

    on_cpu: bool = False
    oom_killed: bool | None = None
    memory_limit_bytes: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)


def text_of(error: BaseException) -> str:
    """An exception as one line: without pydantic's frame, with its class where the text says little, its place where there is none."""
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str) and " " in error.args[0]:
        return _one_line(error.args[0])  # a sentence, which KeyError would quote
    name, text = type(error).__name__, _without_pydantic(_one_line(str(error)))
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{name} in {frames[-1].filename}:{frames[-1].lineno}" if frames else name
    is_telling = name in _TELLING or isinstance(error, OSError)
    return text if is_telling else f"{name}: {text}"


def root_cause(texts: Sequence[str]) -> str:
    """Of failures in the order they were told, the one behind the others: a process that was killed, else the first that is no mere
    consequence of another, else the first. Empty for none."""
    killed = [text for text in texts if any(is_kill(code) for _, code in _exits(text))]
    original = [text for text in texts if not _CONSEQUENCE.search(text)]
    return next(iter([*killed, *original, *texts]), "")


def start_failure(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    """The line for a start that failed. `texts` come from `text_of`, those of the engine's processes before this one's. `exit_codes` are
    those of the engine core processes that have ended, negative for a signal."""
    return _reason(texts, exit_codes, facts) or "the engine did not start, and nothing told why; TOKENPORT_LOG_LEVEL=debug shows more"


def death(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    """The line for an engine that died while serving: which process, how, and the reason if one was told. See `start_failure`."""
    return f"the engine process died: {_reason(texts, exit_codes, facts) or 'it gave no reason; the log may'}"


def memory_shortage(budget_bytes: int, left_bytes: int) -> str:
    """The text of an exception for a GPU on which `left_bytes`, negative if it is a lack, of its budget are left for the KV cache."""
    return f"the model needs {(budget_bytes - left_bytes) / 2**30:.2f} GiB before any KV cache, {budget_bytes / 2**30:.2f} GiB may be used"


def is_kill(exit_code: int) -> bool:
    """Whether a process ended by a signal, other than the one that vLLM sends to those that remain when one has failed."""
    return exit_code < 0 and exit_code != -signal.SIGTERM


def _reason(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    # A core that was killed tells nothing, and its workers only that it is gone; one that told a reason then ended by itself.
    killed = [_ended(name, code, facts) for name, code in exit_codes.items() if is_kill(code)]
    ended = [_ended(name, code, facts) for name, code in exit_codes.items()]
    return next(iter(filter(None, [*killed, _explained(root_cause(texts), facts), *ended])), "")


def _exits(text: str) -> list[tuple[str, int]]:
    """Processes and their exit codes, in vLLM's words for a worker's end and for the end of engine cores."""
    return [(match[1], int(match[2])) for match in [_WORKER_DIED.search(text), _CORE_ENDED.search(text)] if match and match[2] != "None"]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _without_pydantic(text: str) -> str:
    """`1 validation error for ModelConfig Value error, TEXT [type=value_error, ...] For further information ...` -> TEXT."""
    match = re.match(r"\d+ validation errors? for \w+ (.*)", text)
    if match is None:
        return text
    return re.sub(r" \[type=\w+, input_value=.*$", "", match[1]).replace("Value error, ", "").replace("Assertion failed, ", "").strip()


_CONSEQUENCE = re.compile(
    r"WorkerProc initialization failed|Engine core initialization failed|^Executor failed|Connection (?:closed|reset) by peer"
    r"|EngineCore encountered an issue|^Worker failed with error|died unexpectedly|Broken pipe|^cancelled$"
)


def _called(process: str) -> str:
    rank = re.fullmatch(r"VllmWorker-(\d+)", process)
    return f"the worker process of rank {rank[1]}" if rank else "the engine core" if process.startswith("EngineCore") else process


def _ended(process: str, code: int, facts: Facts) -> str:
    """How a process ended, by its exit code."""
    who = _called(process)
    if code >= 0:
        return f"{who} ended by itself with exit code {code}; the log says why"
    name = signal.Signals(-code).name if -code in {item.value for item in signal.Signals} else f"signal {-code}"
    how = f"{who} was killed by {name}"
    if code == -signal.SIGBUS:
        return f"{how}: /dev/shm is full or memory is; start the container with --shm-size=1g or more"
    if code != -signal.SIGKILL or facts.oom_killed is False:
        return how
    limit = (
        f"the memory limit is {facts.memory_limit_bytes / 2**30:.1f} GiB" if facts.memory_limit_bytes else "the machine's memory was full"
    )
    advice = "give it more memory, or set a smaller kv_cache_memory_bytes or gpu_memory_utilization"
    if facts.oom_killed:
        return f"{how}, by the kernel, which was out of memory ({limit}): {advice}"
    return f"{how}: if nobody did that on purpose, the kernel was out of memory: {advice}"


def _explained(text: str, facts: Facts) -> str:
    for pattern, explain in _TABLE:
        if match := pattern.search(text):
            return explain(match, facts)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."


def _memory_knob(facts: Facts) -> str:
    return "kv_cache_memory_bytes" if "kv_cache_memory_bytes" in facts.engine else "gpu_memory_utilization"


def _share(part: str, whole: str) -> str:
    """The largest fraction with two decimals that is not more than part / whole."""
    return f"{int(100 * float(part) / float(whole)) / 100:.2f}"


_LESS = "a larger tensor_parallel_size, a smaller max_model_len, max_num_seqs or max_num_batched_tokens, or a quantized model needs less"


def _gpu_out_of_memory(match: re.Match[str], _: Facts) -> str:
    return f"not enough GPU memory: GPU {match[2]} has {match[3]}, {match[4]} of it free, and {match[1]} more is needed; {_LESS}"


def _no_cache_blocks(_: re.Match[str], facts: Facts) -> str:
    share = facts.engine.get("gpu_memory_utilization")
    told = f" (gpu_memory_utilization={share})" if share is not None else ""
    what = f"the weights leave nothing of what the engine may use{told} for the KV cache"
    return f"not enough memory: {what}; raise gpu_memory_utilization; {_LESS}"


def _short_of_cache(match: re.Match[str], _: Facts) -> str:
    needed = f"the model needs {match[1]} GiB before any KV cache, {match[2]} GiB may be used"
    return f"not enough GPU memory: {needed}; raise gpu_memory_utilization; {_LESS}"


def _cache_smaller_than_context(match: re.Match[str], facts: Facts) -> str:
    fits = f"set max_model_len to {match[4]} or less" if match[4] else "set a smaller max_model_len"
    return (
        f"not enough memory for the KV cache: one request of max_model_len={match[1]} needs {match[2]} GiB, the cache has {match[3]} GiB; "
        f"{fits}, or raise {_memory_knob(facts)}"
    )


def _free_less_than_share(match: re.Match[str], _: Facts) -> str:
    where, free, total, share, needed = match.groups()
    return (
        f"not enough memory on {where}: gpu_memory_utilization={share} needs {needed} GiB, {free} of {total} GiB are free; "
        f"set gpu_memory_utilization={_share(free, total)} or less, or end what else uses it"
    )


def _cpu_cache_too_large(match: re.Match[str], facts: Facts) -> str:
    free, total, cache, budget = match.groups()
    if budget and float(cache) <= 0:
        return (
            f"not enough memory: the model takes {float(budget) - float(cache):.2f} GiB, the engine may use {budget} of {total} GiB, so "
            "nothing is left for the KV cache; raise gpu_memory_utilization or give the container more memory"
        )
    knob = _memory_knob(facts) if budget else "kv_cache_memory_bytes"
    return f"not enough memory: the KV cache needs {cache} GiB, {free} of {total} GiB are free; set a smaller {knob}"


def _heads(match: re.Match[str], _: Facts) -> str:
    heads = int(match[1])
    sizes = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
    return f"tensor_parallel_size={match[2]} cannot divide the model's {heads} attention heads; sizes that can: {sizes}"


def _indivisible(match: re.Match[str], facts: Facts) -> str:
    told = f"a dimension of {match[1]} cannot be divided by {match[2]}"
    if str(facts.engine.get("tensor_parallel_size", 1)) == match[2]:
        return f"tensor_parallel_size={match[2]} does not fit the model: {told}; set another tensor_parallel_size"
    return f"the model cannot be split as asked: {told}"


_SUPPORT = "take a release of Tokenport whose vLLM has it, or install a vLLM plugin that registers it"


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


DRIVER_ADVICE = "update the driver to 580 or later; on SageMaker set InferenceAmiVersion to al2023-ami-sagemaker-inference-gpu-4-1"


def _small_shm(match: re.Match[str], _: Facts) -> str:
    return f"{match[1]} is too small: {match[2]} MiB needed at once, {match[3]} MiB free; start the container with --shm-size=1g or more"


def _long_context(match: re.Match[str], _: Facts) -> str:
    return f"max_model_len={match[1]} is more than the {float(match[3]):.0f} that the model was made for ({match[2]}); set at most that"


def _template(match: re.Match[str], _: Facts) -> str:
    return f"the chat template does not parse: {match[1]}; mend it, or name another with chat_template"


def _inner(match: re.Match[str], facts: Facts) -> str:
    """A worker's failure as the engine core passes it on, if the worker itself could not tell."""
    return _explained(match[1], facts)


def _died(match: re.Match[str], facts: Facts) -> str:
    # The monitor may see a process end before its exit code can be had.
    return f"{_called(match[1])} died" if match[2] == "None" else _ended(match[1], int(match[2]), facts)


def is_lost_worker(text: str) -> bool:
    """Whether `text`, told by an engine process, says that a worker has died."""
    return _WORKER_DIED.search(text) is not None


_NUMBER = r"(-?[\d.]+)"
_WORKER_DIED = re.compile(r"Worker proc (\S+) died unexpectedly \(exit code: (-?\d+|None)\)")
_CORE_ENDED = re.compile(r"Failed core proc\(s\): \{'([^']+)': (-?\d+)")
_TABLE: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str], Facts], str]]] = (
    (_WORKER_DIED, _died),
    (_CORE_ENDED, _died),
    (re.compile(r"^Worker failed with error '(.*)', please check"), _inner),
    (
        re.compile(
            r"out of memory\. Tried to allocate ([\d.]+ \w+)\. GPU (\d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free"
        ),
        _gpu_out_of_memory,
    ),
    (re.compile(r"CUDA(?: error:)? out of memory|CUDA_ERROR_OUT_OF_MEMORY"), lambda _, __: f"not enough GPU memory; {_LESS}"),
    (re.compile(rf"needs {_NUMBER} GiB before any KV cache, {_NUMBER} GiB may be used"), _short_of_cache),
    (re.compile(r"No available memory for the cache blocks"), _no_cache_blocks),
    (
        re.compile(
            rf"max seq len \((\d+)\), \({_NUMBER} GiB KV cache is needed, .*? memory \({_NUMBER} GiB\)"
            r"(?:.*?estimated maximum model length is (\d+))?"
        ),
        _cache_smaller_than_context,
    ),
    (
        re.compile(
            rf"memory on (?:device )?([^()]+) \({_NUMBER}/{_NUMBER} GiB\) "
            rf"on startup is less than desired \w+ memory utilization \({_NUMBER}, {_NUMBER} GiB\)"
        ),
        _free_less_than_share,
    ),
    (
        re.compile(
            rf"\({_NUMBER}/{_NUMBER} GiB\) on kv cache allocation is less than requested memory for kv \({_NUMBER}(?:/{_NUMBER})? GiB\)"
        ),
        _cpu_cache_too_large,
    ),
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
