"""One request's way through the tiers: the only place where a tier is asked, an answer is accepted, and another tier is asked instead.

Until the commit nothing has reached the client, so that a tier may fail, or its draft be dropped, and the next is asked; from then on the
answer is that tier's, whatever happens. Deadline, cost limit and retries are the chain's, not a tier's.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from serving.cascade.asked import Asked, usage_of
from serving.cascade.bill import Attempt, Bill
from serving.cascade.costs import Usage
from serving.cascade.draft import Draft
from serving.cascade.interruption import Interruption
from serving.cascade.metrics import DECIDING, FAILURES, HOLD
from serving.cascade.policy import Rule
from serving.cascade.routing import Decision, Route, Step
from serving.cascade.tier import Tier
from serving.cascade.token_signals import Token, token_signals
from serving.cascade.tokens import tokens_of
from serving.engine.interface import Chunks
from serving.errors import NotReady, Reason, RequestError, TierFailure

_WORTH_ANOTHER_TRY: frozenset[Reason] = frozenset(("throttled", "not_ready", "unreachable", "broken"))
"""The same tier may do better a moment later. What was too slow would be paid for twice, and a refusal stays one."""
_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 8.0


@dataclass(frozen=True)
class Limits:
    """`first_byte_s`: how long a stream may take to begin. `hold_s`: how long a draft is held at most, its beginning included. `attempts`:
    how often a tier is asked at most. `cost_usd`: what the request may have cost when a further model is asked, None for no limit."""

    first_byte_s: float
    hold_s: float
    attempts: int
    cost_usd: float | None


@dataclass(frozen=True)
class Commit:
    """The answer that the client gets: a whole one, or a stream from its first chunk on. `is_judged`: it was asked for with what judging
    needs. `hold_s`: how long it and the drafts before it were held, together."""

    answer: bytes | Draft
    attempt: Attempt
    decision: Decision
    is_judged: bool
    hold_s: float


@dataclass(frozen=True)
class _Beginning:
    """An answer as far as it has come, and what was looked at of it."""

    answer: bytes | Draft
    tokens: list[Token]
    usage: Usage


class Chain:
    """Of one request. `give_up_at`: its deadline, in the event loop's time."""

    def __init__(self, asked: Asked, route: Route, limits: Limits, bill: Bill, interruption: Interruption, give_up_at: float) -> None:
        self._asked = asked
        self._route = route
        self._limits = limits
        self._bill = bill
        self._interruption = interruption
        self._give_up_at = give_up_at
        self._decision: Decision = route.decision
        self._let_through: Step | None = None
        self._num_asked = 0
        self._held_s = 0.0

    async def commit(self, request_id: str) -> Commit:
        """Go on until there is an answer to give.

        Raises:
            TierFailure: the last one's; no tier is left to ask.
            RequestError: a tier says that the request itself is wrong, or the server shuts down.
        """
        steps = list(self._route.steps)
        failure: TierFailure | None = None
        wait_s = 0.0
        for number in range(self._limits.attempts):
            if failure is not None:
                await self._back_off(number, wait_s, failure)
            wait_s = 0.0
            for step in tuple(steps):
                self._refuse_if_over(failure)
                try:
                    commit = await self._ask(step, steps, request_id)
                except TierFailure as error:
                    failure = error
                    if step is not steps[-1]:
                        self._decision = "failover"
                    if _is_worth_another_try(error):
                        wait_s = max(wait_s, error.retry_after_s or 0.0)
                    else:
                        steps.remove(step)
                else:
                    if commit is not None:
                        return commit
                    # Neither what was dropped is asked again nor anything smaller.
                    self._decision = "escalated"
                    del steps[: steps.index(step) + 1]
            if not steps:
                break
        raise failure or TierFailure("no tier of the cascade is left to ask", reason="failed")

    async def _ask(self, step: Step, steps: Sequence[Step], request_id: str) -> Commit | None:
        """Ask one tier once. None: its draft was dropped."""
        tier = step.tier
        if step is self._let_through:
            # Once: a further try asks the breaker again.
            self._let_through = None
        elif not tier.breaker.try_pass():
            seconds = tier.breaker.remaining_s
            raise TierFailure(f"the tier {tier.name} has failed too often and is left alone", reason="not_ready", retry_after_s=seconds)
        self._num_asked += 1
        identifier = request_id if self._num_asked == 1 else f"{request_id}-{self._num_asked}"
        attempt = self._bill.begin(tier)
        asked_at = time.monotonic()
        try:
            begun = await self._begin(step, attempt, identifier)
        finally:
            if step.rule is not None:
                hold_s = time.monotonic() - asked_at
                HOLD.labels(tier.name).observe(hold_s)
                self._held_s += hold_s
        tier.breaker.began()
        if step.rule is None:
            return Commit(begun.answer, attempt, self._decision_for(step), is_judged=False, hold_s=self._held_s)
        is_accepted = self._accepts(step.rule, begun.tokens[: step.hold_tokens])
        if is_accepted or not self._has_another(step, steps, self._bill.so_far_usd(attempt, begun.usage)):
            decision = self._decision_for(step) if is_accepted else "kept"
            return Commit(begun.answer, attempt, decision, is_judged=True, hold_s=self._held_s)
        try:
            if isinstance(begun.answer, Draft):
                await begun.answer.aclose()
        finally:
            self._bill.end(attempt, "rejected", begun.usage)
            tier.breaker.succeeded()
        return None

    async def _begin(self, step: Step, attempt: Attempt, request_id: str) -> _Beginning:
        """The whole answer, or a stream of which as much is held as the decision needs. What fails is paid for as far as it came."""
        kind, let_go_at = self._asked.kind, asyncio.get_running_loop().time() + self._limits.hold_s
        usage: Usage | None = None
        try:
            async with self._interruptible(step.tier):
                answer = await self._generate(step, request_id)
                if isinstance(answer, bytes):
                    whole = json.loads(answer) if step.rule is not None else {"choices": ()}
                    usage = usage_of(whole) or Usage(None, 0)
                    return _Beginning(answer, tokens_of(kind, whole), usage)
                draft = Draft(answer)
                try:
                    if step.rule is not None:
                        await draft.look_ahead(kind, step.hold_tokens, min(let_go_at, self._give_up_at))
                except BaseException:
                    usage = draft.usage()
                    await draft.aclose()
                    raise
                return _Beginning(draft, draft.tokens, draft.usage())
        except BaseException as error:
            self._bill.end(attempt, "failed", usage)
            _note(step.tier, error)
            raise

    async def _generate(self, step: Step, request_id: str) -> bytes | Chunks:
        """Raises TierFailure also where a stream does not begin in time."""
        tier, is_judged = step.tier, step.rule is not None
        body = self._asked.for_tier(tier.sampling, is_judged=is_judged, tells_running_usage=tier.tells_running_usage)
        begins_s = min(self._limits.first_byte_s, self._limits.hold_s) if is_judged else self._limits.first_byte_s
        try:
            async with asyncio.timeout(begins_s if self._asked.is_stream else None):
                return await tier.model.generate(self._asked.kind, body, request_id, deadline_s=self._remaining_s())
        except TimeoutError as error:
            raise TierFailure(f"the tier {tier.name} said nothing for {begins_s:g} s", reason="timeout") from error

    @contextlib.asynccontextmanager
    async def _interruptible(self, tier: Tier) -> AsyncIterator[None]:
        """The engine here ends what it is at by itself, with what there is of it."""
        if tier.is_local:
            yield
            return
        try:
            async with self._interruption.ends():
                yield
        except TimeoutError as error:
            raise _shutting_down() from error

    def _accepts(self, rule: Rule, tokens: Sequence[Token]) -> bool:
        """Where nothing is known of any token, there is no reason to accept."""
        with DECIDING.time():
            return bool(tokens) and rule.accepts({**self._route.features, **token_signals(tokens)})

    def _has_another(self, step: Step, steps: Sequence[Step], spent_usd: float) -> bool:
        """Whether a larger tier will be asked instead, `spent_usd` being paid. It is let through now: of several requests that drop their
        drafts for the one try of a tier, all but one would be left with nothing."""
        if self._is_limit(spent_usd) or self._remaining_s() <= 0:
            return False
        larger = steps[steps.index(step) + 1 :]
        self._let_through = next((other for other in larger if other.tier.breaker.try_pass()), None)
        return self._let_through is not None

    def _decision_for(self, step: Step) -> Decision:
        return self._route.decision if step is self._route.steps[0] else self._decision

    def _refuse_if_over(self, failure: TierFailure | None) -> None:
        if self._interruption.has_come:
            raise _shutting_down()
        if self._remaining_s() <= 0:
            raise failure or TierFailure("the deadline passed before a tier could be asked", reason="timeout")
        if failure is not None and self._is_limit(self._bill.spent_usd):
            raise failure

    def _is_limit(self, usd: float) -> bool:
        return self._limits.cost_usd is not None and usd >= self._limits.cost_usd

    def _remaining_s(self) -> float:
        return self._give_up_at - asyncio.get_running_loop().time()

    async def _back_off(self, number: int, asked_s: float, failure: TierFailure) -> None:
        """Wait before the tiers are asked again, `asked_s` at least. Where the deadline is sooner, `failure` is raised."""
        backoff_s = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** (number - 1)) * random.uniform(0.5, 1)  # noqa: S311 - spreads retries
        wait_s = max(backoff_s, asked_s)
        if wait_s > self._remaining_s():
            raise failure
        with contextlib.suppress(TimeoutError):
            async with self._interruption.ends():
                await asyncio.sleep(wait_s)


def _is_worth_another_try(failure: TierFailure) -> bool:
    """Who is told to come back later than can be waited for, is told so."""
    return failure.reason in _WORTH_ANOTHER_TRY and (failure.retry_after_s or 0.0) <= _MAX_BACKOFF_S


def _note(tier: Tier, error: BaseException) -> None:
    """A tier that says what is wrong with the request works; who left says nothing of it."""
    if isinstance(error, TierFailure):
        tier.breaker.failed()
        FAILURES.labels(tier.name, error.reason).inc()
    elif isinstance(error, RequestError):
        tier.breaker.succeeded()


def _shutting_down() -> NotReady:
    return NotReady("the server is shutting down")
