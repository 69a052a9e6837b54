"""Whether a run may be believed: what would make its figures those of the client, or of nothing. And what a reader should know besides.

Limits: a time is measured no better than the client's own event loop is on time. Its mean lag stands in every mean latency, so it may
reach a twentieth of the median TTFT; its p99, and that of the sendings' lateness, stands in the tails and may reach half of it. Less than
5 and 100 ms is always allowed: an idle client on a machine where others work is that late now and then, and its figures are right all the
same."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.load.plan import Plan
from benchmarks.measuring.record import ClientLoad, Record
from benchmarks.measuring.timing import ttft_s

_ALLOWED_MEAN_S, _ALLOWED_MEAN_SHARE = 0.005, 0.05
_ALLOWED_TAIL_S, _ALLOWED_TAIL_SHARE = 0.1, 0.5
_BUSY_CPU_SHARE = 0.95
_LEAST_ACHIEVED = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """`invalid_reasons`: empty for a run that may be believed. `warnings`: what does not make it invalid but should be known."""

    invalid_reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def judge(
    plan: Plan, records: Sequence[Record], clients: Sequence[ClientLoad], *, interrupted: bool, lost: Sequence[str] = ()
) -> Judgement:
    """Look at everything that can be wrong with a run; all of it is told, not the first alone. `lost`: client processes that died."""
    reasons = [*lost]
    reasons += [reason for reason in (_nothing_measured(records), _interruption(records, interrupted=interrupted)) if reason]
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
    typical_s = statistics.median(first_tokens) if first_tokens else 0.0
    mean_s, tail_s = max(_ALLOWED_MEAN_S, _ALLOWED_MEAN_SHARE * typical_s), max(_ALLOWED_TAIL_S, _ALLOWED_TAIL_SHARE * typical_s)
    found = [reason for client in clients for reason in _process_limits(client, mean_s, tail_s)]
    late = lateness_s(plan, records)
    if late and (worst := float(np.percentile(late, 99))) > tail_s:
        found.append(f"requests were sent {worst * 1000:.0f} ms after their time (p99), {tail_s * 1000:.0f} ms are allowed")
    return [f"the client limited the run: {reason}; give it cores of its own, or more processes (--processes)" for reason in found]


def _process_limits(client: ClientLoad, mean_s: float, tail_s: float) -> list[str]:
    found = []
    if client.cpu_share > _BUSY_CPU_SHARE:
        found.append(f"its process {client.process} used {client.cpu_share:.0%} of a core")
    if not client.loop_lag_s:
        return found
    for name, lag_s, allowed_s in (
        ("in the mean", float(np.mean(client.loop_lag_s)), mean_s),
        ("at its p99", float(np.percentile(client.loop_lag_s, 99)), tail_s),
    ):
        if lag_s > allowed_s:
            late = f"the event loop of its process {client.process} was {lag_s * 1000:.0f} ms late {name}"
            found.append(f"{late}, {allowed_s * 1000:.0f} ms are allowed")
    return found


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
