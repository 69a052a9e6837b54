"""How much of what the machine can do was used: memory bandwidth (MBU) and arithmetic (MFU), each the work that the model's tokens need, by
the time they took, by the ceiling measured on the same machine.

The work is counted from the bytes that the server says are loaded and from the model's shape, never from what a kernel says it did. What is
not known is None, and `reasons` says why; nothing is guessed. The method is that of https://github.com/pytorch-labs/gpt-fast (MBU) and of
PaLM, https://arxiv.org/abs/2204.02311 appendix B (MFU).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring.model_work import ModelWork
from benchmarks.measuring.record import Record
from benchmarks.measuring.window import Window

DEFINITIONS: Mapping[str, str] = {
    "mbu": "Model bandwidth utilisation: bytes of weights and KV cache that the decode steps of the window had to read, by the seconds of "
    "the window, by the memory bandwidth measured on this machine. Prefill is left out, so it is a lower bound where prompts are long.",
    "mfu": "Model FLOPs utilisation: multiplications and additions that the window's output tokens and uncached prompt tokens need (two "
    "for each weight in a matrix product, and attention's), by the seconds of the window, by the rate measured on this machine for the "
    "type of the weights.",
    "mfu_decode": "The same of the output tokens alone.",
}


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the records say of decoding in the window. `tokens_per_s`: output tokens after each answer's first piece. `mean_running`: the
    mean number of answers between first and last piece. `steps_per_s`: of the engine; `kv_tokens_per_step`: the tokens of all contexts
    that a step reads, in the mean; `mean_context`: those of one answer. None: not known, or nothing ran."""

    tokens_per_s: float = 0.0
    mean_running: float = 0.0
    steps_per_s: float | None = None
    kv_tokens_per_step: float | None = None
    mean_context: float | None = None


def decoding(records: Sequence[Record], window: Window) -> Decoding:
    """Counted from the raw arrivals. While answers run, each step gives every one of them a token, so the steps a second are the tokens by
    the answer-seconds (1/TPOT), times the share of the time in which any ran. With speculative decoding a step gives more: it is then not
    the number of steps. A context grows evenly from the prompt's tokens to those with the output, so over any part of the time its mean is
    that at the middle of the part. Source: records alone; prompt tokens are the server's count, and where one is missing the contexts are
    not known."""
    tokens = answer_s = kv_token_s = 0.0
    spans: list[tuple[float, float]] = []
    is_known = True
    for record in records:
        if not record.is_streamed or len(record.arrivals_s) < 2:
            continue
        first, last = record.arrivals_s[0], record.arrivals_s[-1]
        start, end = max(first, window.start_s), min(last, window.end_s)
        tokens += sum(number for time, number in _pieces(record)[1:] if window.holds(time))
        if end <= start:
            continue
        spans.append((start, end))
        answer_s += end - start
        done = ((start + end) / 2 - first) / (last - first)
        is_known = is_known and record.prompt_tokens is not None
        kv_token_s += (end - start) * ((record.prompt_tokens or 0) + done * record.num_tokens)
    if not spans:
        return Decoding()
    busy_s = _covered(spans)
    return Decoding(
        tokens_per_s=tokens / window.length_s,
        mean_running=answer_s / window.length_s,
        steps_per_s=tokens / answer_s * busy_s / window.length_s,
        kv_tokens_per_step=kv_token_s / busy_s if is_known else None,
        mean_context=kv_token_s / answer_s if is_known else None,
    )


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of them."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _pieces(record: Record) -> list[tuple[float, float]]:
    """Time and tokens of each piece of output; where only their sum is known, each piece is given an equal share."""
    if record.arrival_tokens is not None:
        return list(zip(record.arrivals_s, record.arrival_tokens, strict=True))
    return [(time, record.num_tokens / len(record.arrivals_s)) for time in record.arrivals_s]


def prefill_flops_per_s(records: Sequence[Record], window: Window, work: ModelWork, *, are_prompts_distinct: bool) -> float | None:
    """FLOPs of the prompts whose first output came within the window, by its length: 2 a linear weight and token, attention over the
    context before each token, and the vocabulary's matrix once a prompt. Tokens found in the prefix cache cost nothing; where the server
    does not count those and the prompts might share beginnings, None. Source: the server's usage."""
    if work.reason is not None or work.flops is None:
        return None
    flops = 0.0
    for record in records:
        if not record.arrivals_s or not window.holds(record.arrivals_s[0]):
            continue
        cached = 0 if record.cached_tokens is None and are_prompts_distinct else record.cached_tokens
        if record.prompt_tokens is None or cached is None:
            return None
        flops += work.flops.prefill_flops(record.prompt_tokens, cached)
    return flops / window.length_s if window.length_s > 0 else None


def efficiency(
    records: Sequence[Record],
    window: Window,
    work: ModelWork,
    limits: Mapping[str, Any] | None,
    *,
    are_prompts_distinct: bool = False,
) -> dict[str, Any]:
    """The document's "efficiency". `limits` is what `machine.limits.measure` gave; `are_prompts_distinct` says that no prompt begins like
    another, so that none was found in the cache even where the server does not say so."""
    reasons: dict[str, str] = {}
    found = decoding(records, window)
    bytes_per_step = _bytes_per_step(found, work, reasons)
    bytes_per_s = None if found.steps_per_s is None or bytes_per_step is None else bytes_per_step * found.steps_per_s
    decode_flops_per_s = _decode_flops_per_s(found, work, reasons)
    prefill = prefill_flops_per_s(records, window, work, are_prompts_distinct=are_prompts_distinct)
    if prefill is None:
        reasons.setdefault("mfu", work.reason or "the server does not count the prompt tokens that it found in its cache")
    flops_per_s = None if decode_flops_per_s is None or prefill is None else decode_flops_per_s + prefill
    bandwidth, rate = _ceilings(limits, work, reasons)
    return {
        "mbu": _share(bytes_per_s, bandwidth),
        "mfu": _share(flops_per_s, rate),
        "mfu_decode": _share(decode_flops_per_s, rate),
        "bytes_per_s": bytes_per_s,
        "bytes_per_step": bytes_per_step,
        "weights_bytes_per_step": work.weights_read_bytes,
        "kv_bytes_per_token": work.kv_bytes_per_token,
        "kv_tokens_per_step": found.kv_tokens_per_step,
        "steps_per_s": found.steps_per_s,
        "mean_decoding": found.mean_running,
        "flops_per_s": flops_per_s,
        "decode_flops_per_s": decode_flops_per_s,
        "prefill_flops_per_s": prefill,
        "precision": work.precision,
        "bandwidth_limit_bytes_per_s": bandwidth,
        "flops_limit_per_s": rate,
        "reasons": reasons,
        "definitions": dict(DEFINITIONS),
    }


def _bytes_per_step(found: Decoding, work: ModelWork, reasons: dict[str, str]) -> float | None:
    """One decode step reads every weight that takes part once, however many answers run, and the KV cache of all their contexts. Source:
    the server's ledger for both sizes, the records for the contexts."""
    if found.steps_per_s is None:
        reasons["mbu"] = reasons["mfu_decode"] = "no answer was decoding in the window: none had two pieces of output in it"
        return None
    if work.weights_read_bytes is None or work.kv_bytes_per_token is None:
        reasons["mbu"] = work.bytes_reason or "the server's ledger does not tell the bytes"
        return None
    if found.kv_tokens_per_step is None:
        reasons["mbu"] = "the server does not count the prompts' tokens, so the KV cache that was read is not known"
        return None
    return work.weights_read_bytes + work.kv_bytes_per_token * found.kv_tokens_per_step


def _decode_flops_per_s(found: Decoding, work: ModelWork, reasons: dict[str, str]) -> float | None:
    """Two FLOPs for each weight in a matrix product, the vocabulary's included, for each output token, and attention's over its context.
    Source: the model's shape, the records."""
    if work.reason is not None or work.flops is None:
        reasons["mfu"] = reasons["mfu_decode"] = str(work.reason)
        return None
    if found.mean_context is None:
        reasons.setdefault("mfu_decode", "the contexts of the answers are not known")
        reasons.setdefault("mfu", reasons["mfu_decode"])
        return None
    return found.tokens_per_s * work.flops.decode_flops(found.mean_context)


def _ceilings(limits: Mapping[str, Any] | None, work: ModelWork, reasons: dict[str, str]) -> tuple[float | None, float | None]:
    """Of all devices that the model runs on together: ranks on the CPU share one machine, each GPU brings its own."""
    if limits is None:
        reasons["mbu"] = reasons["mfu"] = reasons["mfu_decode"] = "the machine's limits were not measured"
        return None, None
    device = limits["cpu"] if work.device == "cpu" else next(iter(limits["gpus"]), None)
    if device is None:
        reasons["mbu"] = reasons["mfu"] = reasons["mfu_decode"] = limits.get("gpus_reason") or "the GPU's limits were not measured"
        return None, None
    number = 1 if work.device == "cpu" else work.num_devices
    bandwidth = device["bandwidth"]
    if bandwidth is None:
        reasons["mbu"] = "the memory bandwidth was not measured"
    rate = device["rates"].get(work.precision) if work.precision else None
    if rate is None:
        told = device["unavailable"].get(work.precision or "", f"no rate was measured for weights of type {work.precision}")
        reasons["mfu"] = reasons["mfu_decode"] = work.reason or told
    return (
        None if bandwidth is None else bandwidth["bytes_per_s"] * number,
        None if rate is None else rate["flops_per_s"] * number,
    )


def _share(value: float | None, ceiling: float | None) -> float | None:
    return value / ceiling if value is not None and ceiling else None
