"""The words that prompts are made of: a real text cut at random places, so that prompts are language and no two begin alike.

A prompt begins with a few runs of three words, each from a place of its own: there are more such beginnings than anyone sends requests.
What follows is read on from one place, wrapping around. Warm-up prompts begin with words of the text's last part that occur nowhere else.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

TEXT_FILE = Path(__file__).with_name("text.txt")
Part = Literal["measured", "warm-up"]

_NUM_RUNS = 4
_RUN_LENGTH = 3
# An eighth of the shipped text is some five hundred places to begin at: more than warm-ups need, and little lost to what is measured.
_WARM_UP_SHARE = 8


class TextSource:
    """Draws words from one part of a text."""

    def __init__(self, words: tuple[str, ...], part: Part) -> None:
        split = len(words) - len(words) // _WARM_UP_SHARE
        measured = words[:split]
        self._words = measured if part == "measured" else words[split:]
        starts = list(range(len(self._words)))
        if part == "warm-up":
            beginnings = {_run(measured, start) for start in range(len(measured))}
            starts = [start for start in starts if _run(self._words, start) not in beginnings]
        self._starts = np.array(starts)

    def draw(self, num_words: int, rng: np.random.Generator) -> str:
        """At least `num_words` words, a single space between them."""
        *runs, rest = rng.choice(self._starts, size=_NUM_RUNS + 1)
        drawn = [word for start in runs for word in _run(self._words, start)]
        remaining = max(num_words - len(drawn), 0)
        repeats = (int(rest) + remaining) // len(self._words) + 1
        drawn += (self._words * repeats)[int(rest) : int(rest) + remaining]
        return " ".join(drawn)


@lru_cache(maxsize=2)
def shipped_text(part: Part) -> TextSource:
    """The text that comes with the project, without its first line, which says what it is."""
    return TextSource(tuple(TEXT_FILE.read_text(encoding="utf-8").split("\n", 1)[1].split()), part)


def _run(words: tuple[str, ...], start: int) -> tuple[str, ...]:
    return tuple(words[(start + step) % len(words)] for step in range(_RUN_LENGTH))
