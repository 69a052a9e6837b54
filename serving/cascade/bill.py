"""What one request costs, over all tiers that worked for it: the answer, drafts that were dropped, attempts that failed."""

from dataclasses import dataclass

from serving.cascade.budget import Budget
from serving.cascade.costs import Usage
from serving.cascade.metrics import COST, TOKENS, Use
from serving.cascade.tier import Tier


@dataclass(frozen=True)
class Attempt:
    """A tier at work for the request since `begun`, which is its meter's."""

    tier: Tier
    begun: float


class Bill:
    """One a request. `caller`: whose budget it goes to."""

    def __init__(self, caller: str, budget: Budget | None) -> None:
        self._caller = caller
        self._budget = budget
        self._num_prompt: int | None = None
        self._unpriced: list[tuple[Tier, Use]] = []
        self.spent_usd = 0.0
        self.num_rejected_tokens = 0

    def begin(self, tier: Tier) -> Attempt:
        """A tier is asked. Every attempt must be ended."""
        return Attempt(tier, tier.meter.begin())

    def so_far_usd(self, attempt: Attempt, usage: Usage) -> float:
        """What the request has cost if `attempt`, which is still running, is to end with `usage` now."""
        meter = attempt.tier.meter
        return self.spent_usd + meter.share_usd(attempt.begun) + meter.tokens_usd(usage)

    def end(self, attempt: Attempt, use: Use, usage: Usage | None) -> None:
        """It has answered, was dropped or failed. A draft whose stream had not told the length of its prompt is charged for the prompt as
        soon as another tier tells it: their tokens differ, the text is the same."""
        tier = attempt.tier
        usage = usage or Usage(None, 0)
        self._spend(tier, use, tier.meter.end(attempt.begun) + tier.meter.tokens_usd(usage))
        TOKENS.labels(tier.name, "prompt").inc(usage.num_prompt or 0)
        TOKENS.labels(tier.name, "rejected" if use == "rejected" else "completion").inc(usage.num_completion)
        if use == "rejected":
            self.num_rejected_tokens += usage.num_completion
        if usage.num_prompt is not None:
            self._price(usage.num_prompt)
        elif use == "rejected" or usage.num_completion:
            self._unpriced.append((tier, use))
            if self._num_prompt is not None:
                self._price(self._num_prompt)

    def _price(self, num_prompt: int) -> None:
        self._num_prompt = num_prompt
        for tier, use in self._unpriced:
            self._spend(tier, use, tier.meter.tokens_usd(Usage(num_prompt, 0)))
            TOKENS.labels(tier.name, "prompt").inc(num_prompt)
        self._unpriced.clear()

    def _spend(self, tier: Tier, use: Use, usd: float) -> None:
        self.spent_usd += usd
        COST.labels(tier.name, use).inc(usd)
        if self._budget is not None:
            self._budget.spend(self._caller, usd)
