"""What the cascade counts, for `/metrics`. Costs are USD by the prices of the cascade's file."""

from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from serving.cascade.routing import Decision
from serving.errors import Reason

TokenKind = Literal["prompt", "completion", "rejected"]
Use = Literal["answer", "rejected", "failed"]

ANSWERS = Counter("tokenport_cascade_answers", "Answers of the cascade, by the tier that gave them and why it did.", ["tier", "decision"])
TOKENS = Counter("tokenport_cascade_tokens", "Tokens by tier: of prompts, of answers, and of drafts that were dropped.", ["tier", "kind"])
COST = Counter("tokenport_cascade_cost_usd", "USD spent by tier: on answers, dropped drafts and failures.", ["tier", "use"])
IDLE_COST = Gauge("tokenport_cascade_idle_usd", "USD that machines paid by the hour have cost while they answered nothing.", ["tier"])
FAILURES = Counter("tokenport_cascade_failures", "Times that a tier did not answer, by reason.", ["tier", "reason"])
IS_OPEN = Gauge("tokenport_cascade_breaker_open", "1 while a tier is passed over because it failed several times in a row.", ["tier"])
HOLD = Histogram(
    "tokenport_cascade_hold_seconds",
    "Seconds from asking a tier until its draft was let go, dropped or failed.",
    ["tier"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
DECIDING = Histogram(
    "tokenport_cascade_deciding_seconds",
    "Seconds of computing for a decision: before a tier is asked, or on its tokens.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
)
OVER_BUDGET = Counter("tokenport_cascade_over_budget", "Requests that came when the budget was spent, by what became of them.", ["then"])


def begin_at_zero(tier: str) -> None:
    """A rate over a counter misses what happened before its first sample: those of `tier` are there from the start."""
    for counter, values in ((ANSWERS, Decision), (TOKENS, TokenKind), (COST, Use), (FAILURES, Reason)):
        for value in get_args(values):
            counter.labels(tier, value)
