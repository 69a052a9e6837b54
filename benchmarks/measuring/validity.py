"""Whether a run may be believed: what would make its figures those of the client, or of nothing. And what a reader should know besides.

Limits: a time is measured no better than the client's own event loop is on time. Where its lag, or the lateness of its sendings, reaches
a tenth of the median TTFT (25 ms are always allowed: an idle machine's scheduler may be as late), the figures are the client's."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.load.plan import Plan
from benchmarks.measuring.record import ClientLoad, Record
from benchmarks.measuring.timing import ttft_s

_ALLOWED_LATENESS_S = 0.025
_ALLOWED_SHARE = 0.1
_BUSY_CPU_SHARE = 0.95
_LEAST_ACHIEVED = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """`invalid_reasons`: empty for a run that may be believed. `warnings`: what does not make it invalid but should be known."""

    invalid_reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def judge(plan: Plan, records: Sequence[Record], clients: Sequence[ClientLoad], *, interrupted: bool) -> Judgement:
    """Look at everything that can be wrong with a run; all of it is told, not the first alone."""
    reasons = [reason for reason in (_nothing_measured(records), _interruption(records, interrupted=interrupted)) if reason]
    reasons += _client_limits(plan, records, clients)
    warnings = [warning for warning in (_failures(records), _lengths(plan, records), _counts(records), _overload(plan, records)) if warning]
    return Judgement(reasons, warnings)


def lateness_s(plan: Plan, records: Sequence[Record]) -> list[float]:
    """How long after its time each request was sent. Empty where a request may have had to wait for a place: that is the server's doing."""
    if plan.concurrency is not None and any(request.at_s is not None for request in plan.requests):
        return []
    return [record.sent_s - record.scheduled_s for record in records if record.sent_s is not None]


def _nothing_measured(records: Sequence[Record]) -> str | None:
    if any(record.is_whole for record in records):
        return None
    first = next((record.error for record in records if record.error), "nothing was sent")
    return f"no request was answered whole; the first: {first}"


def _interruption(records: Sequence[Record], *, interrupted: bool) -> str | None:
    if not interrupted:
        return None
    return f"interrupted: {sum(record.is_whole for record in records)} of {len(records)} requests had been answered"


def _client_limits(plan: Plan, records: Sequence[Record], clients: Sequence[ClientLoad]) -> list[str]:
    first_tokens = [time for record in records if (time := ttft_s(record, from_send=True)) is not None]
    allowed_s = max(_ALLOWED_LATENESS_S, _ALLOWED_SHARE * (statistics.median(first_tokens) if first_tokens else 0.0))
    reasons = []
    for client in clients:
        if client.loop_lag_s and (lag := float(np.percentile(client.loop_lag_s, 99))) > allowed_s:
            reasons.append(
                f"the client limited the run: the event loop of its process {client.process} was {lag * 1000:.0f} ms late (p99), "
                f"{allowed_s * 1000:.0f} ms are allowed; give it a machine or cores of its own, or more processes (--processes)"
            )
        if client.cpu_share > _BUSY_CPU_SHARE:
            reasons.append(
                f"the client limited the run: its process {client.process} used {client.cpu_share:.0%} of a core; "
                "take more processes (--processes)"
            )
    late = lateness_s(plan, records)
    if late and (worst := float(np.percentile(late, 99))) > allowed_s:
        reasons.append(
            f"the client limited the run: requests were sent {worst * 1000:.0f} ms after their time (p99), "
            f"{allowed_s * 1000:.0f} ms are allowed"
        )
    return reasons


def _failures(records: Sequence[Record]) -> str | None:
    failed = [record for record in records if not record.is_whole]
    if not failed or len(failed) == len(records):
        return None
    return f"{len(failed)} of {len(records)} requests failed ({failed[0].error}); latencies are of the others"


def _lengths(plan: Plan, records: Sequence[Record]) -> str | None:
    exact = {request.number for request in plan.requests if request.ignore_eos}
    shorter = [record for record in records if record.is_whole and record.number in exact and record.num_tokens < record.max_tokens]
    if not shorter:
        return None
    return f"{len(shorter)} answers are shorter than asked for, though their length was to be exact: the server does not keep ignore_eos"


def _counts(records: Sequence[Record]) -> str | None:
    unknown = sum(record.is_whole and record.output_tokens is None for record in records)
    return f"the server gave no usage for {unknown} answers: their tokens are counted by the stream, a piece a token" if unknown else None


def _overload(plan: Plan, records: Sequence[Record]) -> str | None:
    times = [request.at_s for request in plan.requests if request.at_s is not None]
    ends = [record.ended_s for record in records if record.is_whole and record.ended_s is not None]
    if len(times) < 2 or len(ends) < 2 or times[-1] <= times[0]:
        return None
    offered, answered = (len(times) - 1) / (times[-1] - times[0]), (len(ends) - 1) / (max(ends) - min(ends))
    if answered >= _LEAST_ACHIEVED * offered:
        return None
    return (
        f"the server did not keep up: {offered:.2f} requests a second came, {answered:.2f} were answered; "
        "latencies grow with the run's length"
    )
