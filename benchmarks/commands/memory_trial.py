"""One server driven to where its memory ends: the ledger from start to load, the longest context and the most sequences that ran.

Order: the ledger once it is ready; a few short answers, the ledger again; one sequence over the whole context; ever more sequences at once
until some wait. What is asked of the server is real, so what it refuses is a result, with the reason it gave.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load.plan import Plan, Request
from benchmarks.machine.servers import ledger
from benchmarks.machine.telemetry import Telemetry, peaks
from benchmarks.measuring.record import Record

DEFINITIONS: Mapping[str, str] = {
    "ledger": "The server's own account of each device, GET /memory: its parts add up to what the engine could use of the device.",
    "peaks": "The most that the server's processes held in each phase, looked at four times a second: pss_bytes of the processes, shared "
    "pages counted once; gpu_used_bytes of all cards, less what was used before the start. Peaks between two looks are missed.",
    "longest_context_tokens": "Prompt and output together of one request that was answered whole, asked for as long as the server says it "
    "takes (max_model_len).",
    "most_sequences": "The most requests that the engine ran at once, as vllm:num_requests_running of /metrics told while twice as many "
    "were sent each time, until some waited or were refused; each sequence of so many tokens, output included.",
    "kv_cache_tokens": "Tokens that the KV cache holds, of sequences at full context, as vLLM counts them.",
    "plan": "What the server had planned before it started, for the rank that holds the most, as GET /memory tells, with the two ends; and "
    "the most that a rank measured, after load.",
    "fits": "The server started with these settings and answered one request over the whole context.",
}
_PLANNED = ("weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "cuda_graph_bytes", "non_torch_bytes")
Drive = Callable[[Plan], Sequence[Record]]
Say = Callable[[str], None]
_FIRST_SEQUENCES = 8
_NUM_WARM_UPS = 4
_OUTPUT_TOKENS = 8
_TELEMETRY_S = 0.2
_TOO_SHORT = "the load: answers ended before all had begun; give longer sequences, --sequence-lens"
_ROUNDS = 4
_MIN_WAITING_ROWS = 2
"""A request waits for a moment whenever it arrives; seen twice it is no such moment."""
_REQUEST_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Trial:
    """What to ask of a server. `sequence_lens`: tokens of each of many sequences, prompt and output; `max_sequences` are tried at most."""

    url: str
    max_model_len: int
    headers: Mapping[str, str] = field(default_factory=dict)
    sequence_lens: Sequence[int] = (128,)
    max_sequences: int = 1024
    is_short: bool = False
    """Only the longest context: whether it fits."""


def carry_out(trial: Trial, drive: Drive, begin: Callable[[str], None], say: Say) -> dict[str, Any]:
    """The figures of one configuration; `begin` is told each phase's name as it begins."""
    begin("ready")
    ledgers = {"after_start": ledger(trial.url, trial.headers)}
    begin("warming up")
    drive(_together(_NUM_WARM_UPS, min(32, trial.max_model_len), seed=1))
    ledgers["after_warm_up"] = ledger(trial.url, trial.headers)
    begin("under load")
    longest = longest_context(trial, drive)
    say(f"longest context that ran: {longest['tokens']} of {trial.max_model_len} tokens")
    most = []
    for length in () if trial.is_short else trial.sequence_lens:
        most.append(most_sequences(trial, length, drive, say))
    ledgers["under_load"] = ledger(trial.url, trial.headers)
    return {
        "fits": longest["tokens"] == trial.max_model_len,
        "reason": longest["reason"],
        "max_model_len": trial.max_model_len,
        # After load, since the peak of the activations is known only then.
        **sizes(ledgers["under_load"] or ledgers["after_start"]),
        "plan": plan_and_measurement(ledgers["under_load"] or ledgers["after_start"]),
        "longest_context_tokens": longest["tokens"],
        "longest_context_s": longest["seconds"],
        "most_sequences": {str(found["sequence_tokens"]): found["num_running"] for found in most},
        "sequences": most,
        "ledgers": ledgers,
    }


def sizes(account: Mapping[str, Any] | None) -> dict[str, Any]:
    """Weights and KV cache over all devices; None where the server has no ledger."""
    devices = account["devices"] if account else []
    return {
        **{name: sum(device[name] for device in devices) if devices else None for name in (*_PLANNED, "free_bytes")},
        "kv_cache_tokens": devices[0]["kv_cache_tokens"] if devices else None,
        "kv_cache_sequences": devices[0]["kv_cache_sequences"] if devices else None,
    }


def plan_and_measurement(account: Mapping[str, Any] | None) -> dict[str, dict[str, int]] | None:
    """Of each part of a rank's memory `measured` beside `estimate`, `low` and `high`; None where the server tells no plan."""
    planned = (account or {}).get("planned")
    if account is None or not planned:
        return None
    return {name: {"measured": max(device[name] for device in account["devices"]), **planned[name]} for name in _PLANNED}


def longest_context(trial: Trial, drive: Drive) -> dict[str, Any]:
    """One request over all of `max_model_len`: nearly all of it prompt, the rest generated."""
    (record,) = drive(_together(1, trial.max_model_len, seed=2, output_tokens=_OUTPUT_TOKENS))
    tokens = (record.prompt_tokens or 0) + record.num_tokens if record.is_whole else None
    seconds = record.ended_s - record.sent_s if record.is_whole and record.ended_s is not None and record.sent_s is not None else None
    reason = record.error if tokens is None else None if tokens == trial.max_model_len else f"{tokens} tokens ran instead"
    return {"tokens": tokens, "seconds": seconds, "reason": reason}


def most_sequences(trial: Trial, length: int, drive: Drive, say: Say) -> dict[str, Any]:
    """Twice as many each time, of `length` tokens each, until the engine does not run all at once."""
    waves: list[dict[str, Any]] = []
    for number in _numbers(trial.max_sequences):
        waves.append(_wave(trial, number, length, drive, rounds=1))
        if waves[-1]["limited_by"] == _TOO_SHORT:
            # Sent again as soon as one ends, so that all run at once for a while.
            waves.append(_wave(trial, number, length, drive, rounds=_ROUNDS))
        say(f"{number} sequences of {length} tokens: {waves[-1]['running'] or 0:.0f} ran at once, {waves[-1]['waiting'] or 0:.0f} waited")
        if waves[-1]["limited_by"] is not None:
            break
    best = max((int(wave["running"] or 0) for wave in waves), default=0)
    limited_by = waves[-1]["limited_by"] or "the number that was tried: --max-sequences"
    return {"sequence_tokens": length, "num_running": best, "limited_by": limited_by, "waves": waves}


def _numbers(most: int) -> Iterator[int]:
    number = min(_FIRST_SEQUENCES, most)
    while number < most:
        yield number
        number *= 2
    yield most


def _wave(trial: Trial, number: int, length: int, drive: Drive, *, rounds: int) -> dict[str, Any]:
    with Telemetry(trial.url, headers=trial.headers, interval_s=_TELEMETRY_S) as telemetry:
        records = drive(_together(number, length, seed=(number * 1_000_003 + length) * 10 + rounds, rounds=rounds))
    rows = telemetry.rows()
    most = peaks(rows)
    num_refused = sum(record.error_kind == "refused" for record in records)
    failures = sorted({record.error for record in records if record.error is not None and record.error_kind != "refused"})
    wave = {"num_at_once": number, "rounds": rounds, **most, "num_refused": num_refused, "errors": failures[:3]}
    return {**wave, "limited_by": _limit(wave, rows, trial, records)}


def _limit(wave: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], trial: Trial, records: Sequence[Record]) -> str | None:
    """Why not all ran at once; None where they did."""
    running = wave["running"]
    if running is None:
        return "not known: the server's /metrics does not tell what runs"
    if wave["errors"]:
        return f"a request failed: {wave['errors'][0]}"
    if running >= wave["num_at_once"]:
        return None
    if wave["num_refused"]:
        reason = next(record.error for record in records if record.error_kind == "refused")
        return f"the server refused {wave['num_refused']} of them: {reason}"
    if sum((row["waiting"] or 0) > 0 for row in rows) >= _MIN_WAITING_ROWS:
        full = (wave["kv_cache_usage"] or 0) > 0.95 or (wave["preemptions"] or 0) > (rows[0]["preemptions"] or 0)
        return "the KV cache: it was full" if full else "the engine: others waited while the KV cache had room (max_num_seqs)"
    return _TOO_SHORT


def _together(number: int, length: int, *, seed: int, output_tokens: int | None = None, rounds: int = 1) -> Plan:
    """So many sequences of `length` tokens at once, `rounds` times over; a quarter of each is prompt unless told otherwise. Of token ids,
    so that lengths are exact, and different ones, so that none shares another's cache."""
    chance = random.Random(seed)  # noqa: S311 - load, not secrets
    output = max(1, min(length - 1, output_tokens if output_tokens is not None else length - length // 4))
    prompts = (tuple(chance.randrange(100, 1000) for _ in range(length - output)) for _ in range(rounds * number))
    requests = tuple(Request(place, prompt, output, num_prompt_tokens=length - output) for place, prompt in enumerate(prompts))
    return Plan(requests, concurrency=number, request_timeout_s=_REQUEST_TIMEOUT_S)
