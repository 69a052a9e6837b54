"""After the commit: the answer on its way to the client, and when it has ended the bill, in its `usage` and in headers.

Of one HTTP request that becomes several (a batch, a model's own code) headers cannot tell one tier; each answer's `usage` does.
"""

import asyncio
import json
from typing import Any

from serving.cascade.asked import Asked, usage_of
from serving.cascade.bill import Bill
from serving.cascade.chain import Commit
from serving.cascade.costs import Usage
from serving.cascade.interruption import Interruption
from serving.cascade.metrics import FAILURES
from serving.cascade.stream import CascadeChunks, Ending
from serving.cascade.tier import Tier
from serving.engine.interface import Chunks
from serving.engine.work import Scope, Ticket, Work

_TIER, _DECISION, _HOLD_MS, _COST = "x-tokenport-tier", "x-tokenport-decision", "x-tokenport-hold-ms", "x-tokenport-cost"
_SEVERAL = "several"


class Giving:
    """One answer. `ticket` is its place in `work` until it has ended. `give_up_at`: its deadline, in the event loop's time."""

    def __init__(self, asked: Asked, commit: Commit, bill: Bill, work: Work, ticket: Ticket, give_up_at: float) -> None:
        self._asked = asked
        self._commit = commit
        self._bill = bill
        self._work = work
        self._ticket = ticket
        self._give_up_at = give_up_at

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
        told = self._end(usage_of(answer), "whole")
        self._asked.restore(answer, is_judged=self._commit.is_judged)
        answer["usage"] = {**(answer.get("usage") or {}), "tokenport": told}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()

    def _end(self, usage: Usage | None, ending: Ending) -> dict[str, Any]:
        tier = self._commit.attempt.tier
        self._work.end(self._ticket)
        self._bill.end(self._commit.attempt, "failed" if ending == "failed" else "answer", usage)
        if ending == "whole":
            tier.breaker.succeeded()
        elif ending == "failed":
            self._note_failure(tier)
        return {
            "tier": tier.name,
            "decision": self._commit.decision,
            "hold_ms": round(1000 * self._commit.hold_s),
            "cost_usd": round(self._bill.spent_usd, 9),
            "rejected_tokens": self._bill.num_rejected_tokens,
        }

    def _note_failure(self, tier: Tier) -> None:
        """A long answer that the deadline ends is no sign of a tier that does not work."""
        is_late = asyncio.get_running_loop().time() >= self._give_up_at
        FAILURES.labels(tier.name, "timeout" if is_late else "broken").inc()
        if not is_late:
            tier.breaker.failed()


def _tell(scope: Scope, headers: dict[str, str]) -> None:
    if _TIER in scope.headers:
        for name in (_DECISION, _HOLD_MS, _COST):
            scope.headers.pop(name, None)
        headers = {_TIER: _SEVERAL}
    scope.headers.update(headers)
