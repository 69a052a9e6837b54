"""Before a tier is asked: which may answer the request, in which order, and whose tokens are to be judged.

A tier that cannot take the request as it is, is passed over; so is one that the policy's rule on the request does not accept. Of a tier
that the request names itself nothing is asked but that it can take it. No I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.cascade.asked import Asked
from serving.cascade.policy import Policy, Rule, Stage
from serving.cascade.request_features import request_features, text_of
from serving.cascade.tier import Tier
from serving.errors import InvalidRequest

Decision = Literal["named", "first", "accepted", "escalated", "unable", "sticky", "budget", "failover", "kept"]
"""Why a tier answered: it was `named`; it is the `first`, and nothing was judged; its answer, or the request, was `accepted`; a smaller
tier's was not, `escalated`; smaller ones are `unable` to take the request; the conversation is `sticky`; the `budget` is spent; the tier
before failed, `failover`; it was not accepted, but there is no other to ask: `kept`."""


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
        InvalidRequest: it cannot take it; names the field.
    """
    if (obstacle := _obstacle(tier, asked)) is not None:
        raise _refusal(obstacle, f"the tier {tier.name!r}")
    return Route((Step(tier),), "named", {})


def chosen(tiers: Sequence[Tier], policy: Policy | None, asked: Asked, sticky: str | None) -> Route:
    """Through `tiers`, smallest first. `sticky`: the tier that the conversation was handed to, None if it was to none.

    Raises:
        InvalidRequest: none of them can take it; names the field that keeps the last from it.
    """
    judge = _Judge(policy, asked)
    steps: list[Step] = []
    not_accepted: list[Tier] = []
    obstacle: _Obstacle | None = None
    decision: Decision = "kept"
    names = [tier.name for tier in tiers]
    first = names.index(sticky) if sticky in names and _obstacle(tiers[names.index(sticky)], asked) is None else 0
    for tier in tiers[first:]:
        if (found := _obstacle(tier, asked)) is not None:
            obstacle = found
        elif (step := judge.step(tier)) is None:
            not_accepted.append(tier)
        else:
            if not steps and first:
                decision = "sticky"
            elif not steps:
                decision = "escalated" if not_accepted else "unable" if obstacle else "accepted" if judge.has_stage(tier) else "first"
            steps.append(step)
    if not steps and not_accepted:
        steps = [Step(not_accepted[-1])]
    if not steps and obstacle is not None:
        raise _refusal(obstacle, "the last tier")
    return Route(tuple(steps), decision, judge.features)


class _Judge:
    """The policy's rules on the request itself."""

    def __init__(self, policy: Policy | None, asked: Asked) -> None:
        self._stages: dict[str, Stage] = {stage.tier: stage for stage in policy.stages} if policy is not None else {}
        messages = asked.messages() if self._stages else None
        self._is_judgeable = messages is not None
        self._unjudgeable = asked.unjudgeable()
        self.features: Mapping[str, float] = request_features(messages) if messages is not None else {}

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
    """The field that keeps a tier from taking a request, and what there is to say of the tier."""

    field: str
    told: str


def _obstacle(tier: Tier, asked: Asked) -> _Obstacle | None:
    content = "messages" if asked.kind == "chat" else "prompt"
    if asked.kind not in tier.model.kinds:
        return _Obstacle(content, f"takes no {asked.kind} requests")
    if tier.max_prompt_characters is not None and _num_characters(asked) > tier.max_prompt_characters:
        return _Obstacle(content, f"takes at most {tier.max_prompt_characters} characters")
    field = tier.model.cannot_honour(asked.kind, asked.body)
    return None if field is None else _Obstacle(field, "has nothing for it")


def _refusal(obstacle: _Obstacle, who: str) -> InvalidRequest:
    return InvalidRequest(f"{obstacle.field}: {who} {obstacle.told}", param=obstacle.field)


def _num_characters(asked: Asked) -> int:
    """Of all text, whoever says it. A prompt of token ids has none."""
    return sum(len(text_of(message)) for message in asked.messages() or ())
