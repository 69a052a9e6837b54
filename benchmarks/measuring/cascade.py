"""What a cascade did with the questions it was asked: quality, cost, who answered, what holding and deciding took. No I/O."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from benchmarks.measuring.statistics import mean_interval, summarize

DEFINITIONS: Mapping[str, str] = {
    "quality": "Share of the questions whose answer is the right text; one that failed is not right.",
    "cost_usd": "Mean over the answers of what the server says that one cost, dropped drafts included.",
    "ttft_s": "From sending to the first piece of text, of answers that came whole.",
    "hold_s": "How long the server held a draft before it let it go or dropped it, as its header says; answers that were held only.",
    "share_large": "Share of the answers that the last tier gave.",
    "deciding_s": "Computing for one decision, as the server's histogram has it: p50 and p99 are the upper bounds of their buckets.",
}
_BUCKET = re.compile(r'^tokenport_cascade_deciding_seconds_bucket\{le="([^"]+)"\} (\S+)', re.MULTILINE)
_SUM = re.compile(r"^tokenport_cascade_deciding_seconds_sum (\S+)", re.MULTILINE)


class Answer(Protocol):
    """What is known of one; None where the server does not tell."""

    quality: float
    tier: str | None
    decision: str | None
    hold_s: float | None
    cost_usd: float | None
    ttft_s: float | None
    e2e_s: float | None
    error: str | None


def summary(answers: Sequence[Answer], last_tier: str) -> dict[str, Any]:
    """Of the answers that one model name gave."""
    whole = [answer for answer in answers if answer.error is None]
    costs = [answer.cost_usd for answer in whole if answer.cost_usd is not None]
    qualities = [answer.quality for answer in answers]
    return {
        "num_requests": len(answers),
        "num_failed": len(answers) - len(whole),
        "quality": sum(qualities) / len(qualities),
        "quality_ci": mean_interval(qualities),
        "cost_usd": sum(costs) / len(costs) if costs else None,
        "share_large": sum(answer.tier == last_tier for answer in whole) / len(whole) if whole else None,
        "decisions": dict(Counter(f"{answer.tier} {answer.decision}" for answer in whole)),
        "ttft_s": summarize([answer.ttft_s for answer in whole if answer.ttft_s is not None]),
        "e2e_s": summarize([answer.e2e_s for answer in whole if answer.e2e_s is not None]),
        "hold_s": summarize([answer.hold_s for answer in whole if answer.hold_s]),
    }


def deciding(before: str, after: str) -> dict[str, float | None] | None:
    """The decisions between two readings of `/metrics`; None if there were none."""
    old, new = dict(_BUCKET.findall(before)), dict(_BUCKET.findall(after))
    counts = [(float(bound), float(count) - float(old.get(bound, 0))) for bound, count in new.items()]
    if not counts or not counts[-1][1]:
        return None
    total = counts[-1][1]
    seconds = [float(text) for text in (*_SUM.findall(after), *(_SUM.findall(before) or ["0"]))]

    def at_most(share: float) -> float | None:
        bound = next(bound for bound, count in counts if count >= share * total)
        return bound if bound < float("inf") else None

    return {"num": total, "mean": (seconds[0] - seconds[1]) / total, "p50": at_most(0.5), "p99": at_most(0.99)}
