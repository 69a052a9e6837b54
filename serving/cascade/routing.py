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
    if (field := _unable(tier, asked)) is not None:
        raise InvalidRequest(f"{field}: the tier {tier.name!r} has nothing for it; leave it out, or choose another model", param=field)
    return Route((Step(tier),), "named", {})


def chosen(tiers: Sequence[Tier], policy: Policy | None, asked: Asked, sticky: str | None) -> Route:
    """Through `tiers`, smallest first. `sticky`: the tier that the conversation was handed to, None if it was to none.

    Raises:
        InvalidRequest: none of them can take it; names the field that the last has nothing for.
    """
    judge = _Judge(policy, asked)
    steps: list[Step] = []
    passed_over: list[Tier] = []
    decision: Decision = "first"
    field = None
    names = [tier.name for tier in tiers]
    for tier in tiers[names.index(sticky) if sticky in names else 0 :]:
        if (obstacle := _unable(tier, asked)) is not None:
            field = obstacle
            decision = decision if steps or decision == "escalated" else "unable"
        elif (step := judge.step(tier)) is not None:
            steps.append(step)
        else:
            passed_over.append(tier)
            decision = decision if steps else "escalated"
    if not steps and not passed_over:
        raise InvalidRequest(f"{field}: no tier of the cascade has anything for it; leave it out", param=field)
    if not steps:
        return Route((Step(passed_over[-1]),), "kept", judge.features)
    if decision == "first" and judge.has_stage(steps[0].tier):
        decision = "accepted"
    return Route(tuple(steps), "sticky" if sticky in names else decision, judge.features)


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


def _unable(tier: Tier, asked: Asked) -> str | None:
    """The field that keeps `tier` from taking the request."""
    content = "messages" if asked.kind == "chat" else "prompt"
    if asked.kind not in tier.model.kinds:
        return content
    if tier.max_prompt_characters is not None and _num_characters(asked) > tier.max_prompt_characters:
        return content
    return tier.model.cannot_honour(asked.kind, asked.body)


def _num_characters(asked: Asked) -> int:
    """Of all text, whoever says it. A prompt of token ids has none."""
    return sum(len(text_of(message)) for message in asked.messages() or ())
