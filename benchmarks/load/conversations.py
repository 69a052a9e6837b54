"""Conversations of several turns: how many turns each has, and how long a person thinks before the next. Knows no prompts and no times."""

from dataclasses import dataclass

import numpy as np

from benchmarks.load.lengths import Distribution


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: of which conversation, its place in it from 0, and the pause before it, counted from the end of the answer before."""

    conversation: int
    place: int
    think_s: float


def draw_turns(
    turns: Distribution, think: Distribution, rng: np.random.Generator, *, num_conversations: int, num_requests: int | None = None
) -> list[Turn]:
    """Conversations one after the other, each with its turns in order: `num_conversations`, or as many of them as make `num_requests`
    requests (the last is cut short where they do not come out even)."""
    counts = turns.draw_lengths(num_conversations, rng)
    places = [(conversation, place) for conversation, count in enumerate(counts) for place in range(count)][:num_requests]
    pauses_s = think.draw_seconds(len(places), rng)
    return [
        Turn(conversation, place, float(pause_s) if place else 0.0) for (conversation, place), pause_s in zip(places, pauses_s, strict=True)
    ]
