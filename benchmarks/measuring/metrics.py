"""Records of one run to its metrics. Everything is computed from raw times and counts; nothing else goes in."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measuring.record import Record
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.statistics import summarize
from benchmarks.measuring.timing import e2e_s, itl_s, tpot_s, ttft_s
from benchmarks.measuring.window import Window, whole_run

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")


def metrics(records: Sequence[Record], window: Window, slo: Slo | None = None, *, from_send: bool = False) -> dict[str, Any]:
    """The metrics of `records` within `window`; latencies from the scheduled time, or `from_send`."""
    due = sorted((record for record in records if window.holds(record.scheduled_s)), key=lambda record: record.scheduled_s)
    rates_of_window = rates(records, window)
    whole = whole_run(records)
    return {
        "duration_s": whole.length_s,
        "window_s": window.length_s,
        "num_requests": len(due),
        "num_completed": sum(record.is_whole for record in due),
        "num_failed": sum(not record.is_whole for record in due),
        "errors": dict(Counter(record.error_kind or "unknown" for record in due if not record.is_whole)),
        **rates_of_window,
        "whole_run": {"duration_s": whole.length_s, **rates(records, whole)},
        **latencies(due, from_send=from_send),
        "goodput": None if slo is None else goodput(due, slo, rates_of_window),
        "mean_concurrency": _per_second(sum(_overlap_s(record, window) for record in records), window),
        "tokens": tokens(due),
    }


def rates(records: Sequence[Record], window: Window) -> dict[str, float | None]:
    """Tokens and whole answers a second in the window; None where it has no length."""
    output = sum(_tokens_within(record, window) for record in records)
    prompts = sum(record.prompt_tokens or 0 for record in records if record.arrivals_s and window.holds(record.arrivals_s[0]))
    answered = sum(_share_within(record, window) for record in records if record.is_whole)
    return {
        "output_tokens_per_s": _per_second(output, window),
        "input_tokens_per_s": _per_second(prompts, window),
        "total_tokens_per_s": _per_second(output + prompts, window),
        "requests_per_s": _per_second(answered, window),
    }


def latencies(due: Sequence[Record], *, from_send: bool) -> dict[str, Any]:
    """TTFT, TPOT, ITL and E2E of requests in the order in which they were due."""
    ways: dict[str, Callable[[Record], list[float]]] = {
        "ttft_s": lambda record: _if_known(ttft_s(record, from_send=from_send)),
        "tpot_s": lambda record: _if_known(tpot_s(record)),
        "itl_s": itl_s,
        "e2e_s": lambda record: _if_known(e2e_s(record, from_send=from_send)),
    }
    return {name: summarize([sample for record in due for sample in way(record)]) for name, way in ways.items()}


def goodput(due: Sequence[Record], slo: Slo, window_rates: dict[str, float | None]) -> dict[str, Any]:
    """The share of the requests due in the window that kept the limits, and what remains of the rates."""
    good = [record for record in due if slo.is_kept_by(record)]
    whole = [record for record in due if record.is_whole]
    share_of_tokens = sum(record.num_tokens for record in good) / max(1, sum(record.num_tokens for record in whole))
    requests, output = window_rates["requests_per_s"], window_rates["output_tokens_per_s"]
    return {
        "slo": slo.to_json(),
        "share": len(good) / len(due) if due else None,
        "requests_per_s": None if requests is None else requests * len(good) / max(1, len(whole)),
        "output_tokens_per_s": None if output is None else output * share_of_tokens,
    }


def tokens(due: Sequence[Record]) -> dict[str, Any]:
    """What was read and generated, who counted it, and where the stream told another number."""
    answered = [record for record in due if record.is_whole]
    by_usage = sum(record.output_tokens is not None for record in answered)
    return {
        "prompt": sum(record.prompt_tokens or 0 for record in due),
        "output": sum(record.num_tokens for record in due),
        "cached": sum(record.cached_tokens or 0 for record in due),
        "pieces": sum(len(record.arrivals_s) for record in due),
        "counted_by": "usage" if by_usage == len(answered) else "stream" if not by_usage else "both",
        "num_mismatches": sum(_is_mismatch(record) for record in answered),
        "num_shorter": sum(record.num_tokens < record.max_tokens for record in answered),
    }


def _is_mismatch(record: Record) -> bool:
    if record.output_tokens is None or not record.is_streamed:
        return False
    if record.arrival_tokens is not None:
        return sum(record.arrival_tokens) != record.output_tokens
    # A piece holds one token or more; an end of text is counted and has none.
    return len(record.arrivals_s) > record.output_tokens


def _tokens_within(record: Record, window: Window) -> float:
    """Output tokens that arrived in the window. Where only their sum is known, each piece is given an equal share."""
    if not record.arrivals_s:
        return 0
    if record.arrival_tokens is not None:
        return sum(num for time, num in zip(record.arrivals_s, record.arrival_tokens, strict=True) if window.holds(time))
    return record.num_tokens * sum(map(window.holds, record.arrivals_s)) / len(record.arrivals_s)


def _overlap_s(record: Record, window: Window) -> float:
    if record.sent_s is None or record.ended_s is None:
        return 0.0
    return max(0.0, min(record.ended_s, window.end_s) - max(record.sent_s, window.start_s))


def _share_within(record: Record, window: Window) -> float:
    """How much of a request's time lies in the window. Counting ends instead would count a wave too many where a window begins with one."""
    if record.sent_s is None or record.ended_s is None:
        return 0.0
    length_s = record.ended_s - record.sent_s
    return _overlap_s(record, window) / length_s if length_s > 0 else float(window.holds(record.ended_s))


def _per_second(amount: float, window: Window) -> float | None:
    return amount / window.length_s if window.length_s > 0 else None


def _if_known(value: float | None) -> list[float]:
    return [] if value is None else [value]
