"""A policy over requests whose outcomes are known: who answers each, how good that is, what it costs. Rejected drafts are paid in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.cascade.fitting.outcomes import Floats, Outcomes
from serving.cascade.policy import Rule, Stage
from serving.errors import CascadeError


@dataclass(frozen=True)
class Replay:
    """By request: the index of the tier that answered, its quality, and the cost of all tiers that were tried."""

    answered: NDArray[np.intp]
    quality: Floats
    cost: Floats


@dataclass(frozen=True)
class Chances:
    """Of one stage, by request: what its rules say, whatever their thresholds; 1 for a rule that is not there."""

    before: Floats
    after: Floats


def chances(stages: Sequence[Stage], outcomes: Outcomes) -> list[Chances]:
    """What each stage's rules say of each request.

    Raises:
        CascadeError: the outcomes lack a tier or a signal that a stage asks for.
    """
    found = []
    for stage in stages:
        signals = outcomes.signals[stage.tier]
        rows = [{**row, **{name: float(values[index]) for name, values in signals.items()}} for index, row in enumerate(outcomes.features)]
        found.append(Chances(_said(stage, stage.before, outcomes.features), _said(stage, stage.after, rows)))
    return found


def replay(stages: Sequence[Stage], said: Sequence[Chances], outcomes: Outcomes) -> Replay:
    """The way of every request through the stages, to the last tier of the outcomes where none answers. `said` is what `chances` gave for
    these stages, with whatever thresholds."""
    last = len(outcomes.tiers) - 1
    answered = np.full(len(outcomes), last)
    cost = np.zeros(len(outcomes))
    is_open = np.ones(len(outcomes), dtype=bool)
    for stage, chance in zip(stages, said, strict=True):
        if not stage.can_answer:
            continue
        tier = outcomes.tiers.index(stage.tier)
        is_tried = is_open & _reaches(chance.before, stage.before)
        cost += is_tried * outcomes.cost[:, tier]
        is_answered = is_tried & _reaches(chance.after, stage.after)
        answered[is_answered] = tier
        is_open &= ~is_answered
    cost += is_open * outcomes.cost[:, last]
    return Replay(answered, outcomes.quality[np.arange(len(outcomes)), answered], cost)


def with_threshold(stages: Sequence[Stage], threshold: float | None) -> tuple[Stage, ...]:
    """The stages with this threshold on the rule that decides: `after`, or where there is none `before`."""
    return tuple(_with_threshold(stage, threshold) for stage in stages)


def _with_threshold(stage: Stage, threshold: float | None) -> Stage:
    if stage.after is not None:
        return replace(stage, after=replace(stage.after, threshold=threshold))
    return stage if stage.before is None else replace(stage, before=replace(stage.before, threshold=threshold))


def _said(stage: Stage, rule: Rule | None, rows: Sequence[Mapping[str, float]]) -> Floats:
    if rule is None:
        return np.ones(len(rows))
    try:
        return np.array([rule.chance(row) for row in rows])
    except KeyError as error:
        raise CascadeError(f"the policy's stage of {stage.tier!r} asks for the signal {error}, which the outcomes do not have") from error


def _reaches(chance: Floats, rule: Rule | None) -> NDArray[np.bool_]:
    """As `Rule.accepts`, of a rule that accepts anything."""
    return chance >= (rule.threshold if rule is not None and rule.threshold is not None else 0.0)
