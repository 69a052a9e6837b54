"""After the commit: the answer on its way to the client, and when it has ended the bill, in its `usage` and in headers.

Of one HTTP request that becomes several (a batch, a model's own code) headers cannot tell one tier; each answer's `usage` does.
"""

import json
from typing import Any

from serving.cascade.asked import Asked, usage_of
from serving.cascade.bill import Bill
from serving.cascade.chain import Commit
from serving.cascade.costs import Usage
from serving.cascade.interruption import Interruption
from serving.cascade.metrics import FAILURES
from serving.cascade.stream import CascadeChunks
from serving.engine.interface import Chunks
from serving.engine.work import Scope, Ticket, Work

_TIER, _DECISION, _HOLD_MS, _COST = "x-tokenport-tier", "x-tokenport-decision", "x-tokenport-hold-ms", "x-tokenport-cost"
_SEVERAL = "several"


class Giving:
    """One answer. `ticket` is its place in `work` until it has ended."""

    def __init__(self, asked: Asked, commit: Commit, bill: Bill, work: Work, ticket: Ticket) -> None:
        self._asked = asked
        self._commit = commit
        self._bill = bill
        self._work = work
        self._ticket = ticket

    def give(self, scope: Scope, interruption: Interruption) -> bytes | Chunks:
        """What `Engine.generate` returns. `scope`: where the headers are told. They go out before a stream does: its cost there is what has
        been spent by then, on drafts that were dropped and attempts that failed."""
        answer = self._commit.answer
        given: bytes | Chunks
        if isinstance(answer, bytes):
            given = self._whole(json.loads(answer))
        else:
            given = CascadeChunks(
                answer,
                self._asked,
                self._end,
                is_judged=self._commit.is_judged,
                interruption=None if self._commit.attempt.tier.is_local else interruption,
            )
        _tell(scope, self._headers())
        return given

    def _headers(self) -> dict[str, str]:
        return {
            _TIER: self._commit.attempt.tier.name,
            _DECISION: self._commit.decision,
            _HOLD_MS: f"{1000 * self._commit.hold_s:.0f}",
            _COST: f"{self._bill.spent_usd:.9f}",
        }

    def _whole(self, answer: dict[str, Any]) -> bytes:
        told = self._end(usage_of(answer), False)
        self._asked.restore(answer, is_judged=self._commit.is_judged)
        answer["usage"] = {**(answer.get("usage") or {}), "tokenport": told}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()

    def _end(self, usage: Usage | None, is_failure: bool) -> dict[str, Any]:
        tier = self._commit.attempt.tier
        self._work.end(self._ticket)
        self._bill.end(self._commit.attempt, "failed" if is_failure else "answer", usage)
        if is_failure:
            tier.breaker.failed()
            FAILURES.labels(tier.name, "broken").inc()
        return {
            "tier": tier.name,
            "decision": self._commit.decision,
            "hold_ms": round(1000 * self._commit.hold_s),
            "cost_usd": round(self._bill.spent_usd, 9),
            "rejected_tokens": self._bill.num_rejected_tokens,
        }


def _tell(scope: Scope, headers: dict[str, str]) -> None:
    if _TIER in scope.headers:
        for name in (_DECISION, _HOLD_MS, _COST):
            scope.headers.pop(name, None)
        headers = {_TIER: _SEVERAL}
    scope.headers.update(headers)
