"""Failures for want of memory, in the words of vLLM 0.32 and torch 2.13: what is needed, what is there, what to set."""

import re
from collections.abc import Sequence

from serving.engine.diagnosis.rule import Facts, Rule

_NUMBER = r"(-?[\d.]+)"
_LESS = "a larger tensor_parallel_size, a smaller max_model_len, max_num_seqs or max_num_batched_tokens, or a quantized model needs less"


def memory_shortage(budget_bytes: int, left_bytes: int) -> str:
    """The text of an exception for a GPU on which `left_bytes`, negative if it is a lack, of its budget are left for the KV cache."""
    return f"the model needs {(budget_bytes - left_bytes) / 2**30:.2f} GiB before any KV cache, {budget_bytes / 2**30:.2f} GiB may be used"


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


def _memory_knob(facts: Facts) -> str:
    return "kv_cache_memory_bytes" if "kv_cache_memory_bytes" in facts.engine else "gpu_memory_utilization"


def _share(part: str, whole: str) -> str:
    """The largest fraction with two decimals that is not more than part / whole."""
    return f"{int(100 * float(part) / float(whole)) / 100:.2f}"


MEMORY_RULES: Sequence[Rule] = (
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
)
