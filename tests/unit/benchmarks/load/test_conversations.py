"""Turns of conversations: how many, and the pauses before them."""

import numpy as np

from benchmarks.load.conversations import draw_turns
from benchmarks.load.lengths import fixed, parse_distribution


def rng():
    return np.random.default_rng(5)


def test_each_conversation_has_its_turns_in_order_and_pauses_before_all_but_the_first():
    turns = draw_turns(fixed(3), fixed(2.5), rng(), num_conversations=2)
    assert [(turn.conversation, turn.place, turn.think_s) for turn in turns] == [
        (0, 0, 0.0),
        (0, 1, 2.5),
        (0, 2, 2.5),
        (1, 0, 0.0),
        (1, 1, 2.5),
        (1, 2, 2.5),
    ]


def test_the_number_of_requests_is_kept_exactly():
    turns = draw_turns(fixed(3), fixed(0), rng(), num_conversations=7, num_requests=7)
    assert [(turn.conversation, turn.place) for turn in turns] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


def test_turns_and_pauses_are_drawn():
    turns = draw_turns(parse_distribution("--turns", "1..5"), parse_distribution("--think", "1..3"), rng(), num_conversations=500)
    counts = np.bincount([turn.conversation for turn in turns])
    assert (counts.min(), counts.max()) == (1, 5)
    pauses_s = [turn.think_s for turn in turns if turn.place]
    assert 1 <= min(pauses_s) < 1.2
    assert 2.8 < max(pauses_s) <= 3
