"""Before a tier is asked: which may answer the request, in which order, and whose tokens are to be judged.

A tier that does not take the request as it is, is passed over; so is one that the policy's rule on the request does not accept. Of a tier
that the request names itself nothing is asked but that it takes it. No I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.cascade.asked import Asked
from serving.cascade.policy import Policy, Rule, Stage
from serving.cascade.request_features import plain
from serving.cascade.tier import Tier
from serving.errors import InvalidRequest

Decision = Literal["named", "first", "accepted", "escalated", "unable", "rule", "sticky", "budget", "failover", "kept"]
"""Why a tier answered: it was `named`; it is the `first`, and nothing was judged; its answer, or the request, was `accepted`; a smaller
tier's was not, `escalated`; smaller ones are `unable` to answer the request, or by a `rule` do not take it; the conversation is `sticky`;
the `budget` is spent; the tier before failed, `failover`; it was not accepted, but there is no other to ask: `kept`."""


@dataclass(frozen=True)
class Step:
    """A tier to ask. With `rule`, its first `hold_tokens` tokens are judged, unless no other tier is left to ask."""

    tier: Tier
    rule: Rule | None = None
    hold_tokens: int = 0


@dataclass(frozen=True)
class Route:
    """`steps`, at least one, in the order to ask them. `decision`: why the first of them is the first. `features`: of the request."""

    steps: tuple[Step, ...]
    decision: Decision
    features: Mapping[str, float]


def named(tier: Tier, asked: Asked) -> Route:
    """To the tier that the request names.

    Raises:
        InvalidRequest: it does not take it; names the field.
    """
    if (obstacle := _obstacle(tier, asked)) is not None:
        raise obstacle.refusal()
    return Route((Step(tier),), "named", {})


def takes(tier: Tier, asked: Asked) -> bool:
    """Whether `tier` can answer the request, and its rules hold for it."""
    return _obstacle(tier, asked) is None


def chosen(tiers: Sequence[Tier], policy: Policy | None, asked: Asked, sticky: str | None) -> Route:
    """Through `tiers`, smallest first. `sticky`: the tier that the conversation was handed to, None if it was to none.

    Raises:
        InvalidRequest: none of them takes it; names the field that keeps the last from it.
    """
    judge = _Judge(policy, asked)
    first = _place(sticky, tiers, asked)
    steps: list[Step] = []
    not_accepted: list[Tier] = []
    obstacle: _Obstacle | None = None
    decision: Decision = "kept"
    passed_over: Decision | None = "sticky" if first else None
    for tier in tiers[first:]:
        if (found := _obstacle(tier, asked)) is not None:
            obstacle = found
            passed_over = passed_over if not_accepted else found.decision
        elif (step := judge.step(tier)) is None:
            not_accepted.append(tier)
            passed_over = "escalated"
        else:
            if not steps:
                decision = passed_over or ("accepted" if judge.has_stage(tier) else "first")
            steps.append(step)
    if not steps and not_accepted:
        steps = [Step(not_accepted[-1])]
    if not steps and obstacle is not None:
        raise obstacle.refusal()
    return Route(tuple(steps), decision, judge.features)


def _place(sticky: str | None, tiers: Sequence[Tier], asked: Asked) -> int:
    """Where in `tiers` to begin: at the conversation's own, if that takes the request and is not left alone."""
    place = next((index for index, tier in enumerate(tiers) if tier.name == sticky), 0)
    return 0 if tiers[place].breaker.is_open or not takes(tiers[place], asked) else place


class _Judge:
    """The policy's rules on the request itself."""

    def __init__(self, policy: Policy | None, asked: Asked) -> None:
        self._stages: dict[str, Stage] = {stage.tier: stage for stage in policy.stages} if policy is not None else {}
        features = asked.features if self._stages else None
        self._is_judgeable = features is not None
        self._unjudgeable = asked.unjudgeable()
        self.features: Mapping[str, float] = features or {}

    def has_stage(self, tier: Tier) -> bool:
        return tier.name in self._stages

    def step(self, tier: Tier) -> Step | None:
        """How to ask `tier`; None if it is not to answer this request. What cannot be judged is not accepted."""
        stage = self._stages.get(tier.name)
        if stage is None:
            return Step(tier)
        if not stage.can_answer or not self._is_judgeable or (stage.after is not None and self._unjudgeable is not None):
            return None
        if stage.before is not None and not stage.before.accepts(self.features):
            return None
        return Step(tier, stage.after, stage.hold_tokens)


@dataclass(frozen=True)
class _Obstacle:
    """The field that keeps a tier from a request, and why; `decision` of the tier that is asked instead."""

    field: str
    told: str
    decision: Decision = "unable"

    def refusal(self) -> InvalidRequest:
        return InvalidRequest(f"{self.field}: {self.told}", param=self.field)


def _obstacle(tier: Tier, asked: Asked) -> _Obstacle | None:
    who, content = f"the tier {tier.name!r}", "messages" if asked.kind == "chat" else "prompt"
    if asked.kind not in tier.model.kinds:
        return _Obstacle(content, f"{who} takes no {asked.kind} requests")
    if (field := tier.model.cannot_honour(asked.kind, asked.body)) is not None:
        return _Obstacle(field, f"{who} has nothing for it")
    if not tier.takes:
        return None
    if asked.features is None:
        return _Obstacle(content, f"{who} takes only requests of one text, on which it has rules", "rule")
    found = plain(asked.features)
    for name, bounds in tier.takes.items():
        if not bounds.has(found[name]):
            return _Obstacle(content, f"{who} takes {name} of {bounds}, and this has {found[name]:.15g}", "rule")
    return None
