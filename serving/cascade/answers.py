"""One request for the cascade: over budget or not, its route, its way through the tiers, its answer."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from serving.cascade import routing
from serving.cascade.asked import Asked
from serving.cascade.bill import Bill
from serving.cascade.budget import Budget
from serving.cascade.chain import Chain, Limits
from serving.cascade.config import AUTO
from serving.cascade.giving import Giving
from serving.cascade.interruption import Interruption
from serving.cascade.metrics import ANSWERS, DECIDING, OVER_BUDGET
from serving.cascade.policy import Policy
from serving.cascade.routing import Route
from serving.cascade.sticky import Sticky, conversation_of, is_continued
from serving.cascade.tier import Tier
from serving.engine.interface import Chunks
from serving.engine.work import Scope, Work, current_scope
from serving.errors import Overloaded, TierFailure


@dataclass(frozen=True)
class Rules:
    """What holds for every request. `deadline_s`: for its whole way, unless the server's own deadline comes before."""

    tiers: Sequence[Tier]
    policy: Policy | None
    limits: Limits
    deadline_s: float
    budget: Budget | None
    sticky: Sticky


class Answers:
    """`work`: where answers that other servers give are kept, so that this server can end them."""

    def __init__(self, rules: Rules, work: Work) -> None:
        self._rules = rules
        self._work = work
        self._by_name = {tier.name: tier for tier in rules.tiers}

    async def answer(self, asked: Asked, model: str, request_id: str) -> bytes | Chunks:
        """See `Engine.generate`. `model`: `auto` or a tier's name."""
        scope = current_scope.get() or Scope()
        with DECIDING.time():
            conversation = conversation_of(asked.body, scope.caller, scope.session) if self._rules.sticky.is_on else None
            route = self._route(asked, model, scope, conversation)
        bill, interruption = Bill(scope.caller, self._rules.budget), Interruption()
        give_up_at = self._give_up_at(asked, scope)
        chain = Chain(asked, route, self._rules.limits, bill, interruption, give_up_at)
        ticket = self._work.begin_elsewhere(interruption.come)
        try:
            commit = await chain.commit(request_id)
        except BaseException as error:
            self._work.end(ticket)
            if isinstance(error, TierFailure) and error.retry_after_s is not None:
                error.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
            raise
        tier = commit.attempt.tier
        ANSWERS.labels(tier.name, commit.decision).inc()
        if commit.decision in ("escalated", "rule"):
            self._rules.sticky.keep(conversation, tier.name)
        return Giving(asked, commit, bill, self._work, ticket, give_up_at).give(scope, interruption)

    def _route(self, asked: Asked, model: str, scope: Scope, conversation: str | None) -> Route:
        rules = self._rules
        over_s = rules.budget.exceeded_for_s(scope.caller) if rules.budget is not None else 0.0
        if rules.budget is not None and over_s:
            return self._over_budget(asked, model, over_s, refuses=rules.budget.refuses)
        if model != AUTO:
            return routing.named(self._by_name[model], asked)
        sticky = rules.sticky.tier_of(conversation) if is_continued(asked.body, scope.session) else None
        return routing.chosen(rules.tiers, rules.policy, asked, sticky)

    def _over_budget(self, asked: Asked, model: str, over_s: float, *, refuses: bool) -> Route:
        """To the first tier alone, where that is what the budget says, the request does not ask for another, and the tier takes it.

        Raises:
            Overloaded: it is to be refused; says when to come back.
            InvalidRequest: it asks for the first tier by name, which does not take it.
        """
        first = self._rules.tiers[0]
        if not refuses and (model == first.name or (model == AUTO and routing.takes(first, asked))):
            OVER_BUDGET.labels("small").inc()
            return Route(routing.named(first, asked).steps, "budget", {})
        OVER_BUDGET.labels("refuse").inc()
        seconds = math.ceil(over_s)
        raise Overloaded(f"the budget is spent; come back in {seconds} s", headers={"Retry-After": str(seconds)})

    def _give_up_at(self, asked: Asked, scope: Scope) -> float:
        """In the event loop's time, which is the monotonic clock's, as the scope's."""
        now = asyncio.get_running_loop().time()
        own_s = scope.stream_deadline_s if asked.is_stream else scope.deadline_s
        return min(now + self._rules.deadline_s, math.inf if own_s is None else scope.started + own_s)
