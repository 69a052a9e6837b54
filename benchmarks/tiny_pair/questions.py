"""Questions with one right answer each: copy letters, sort letters, add two numbers; longer ones are harder."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
LETTERS = _LETTERS + "0123456789+ "
"""Every character of a question or an answer."""
_LENGTHS = range(2, 9)
_MOST = 999


@dataclass(frozen=True)
class Question:
    """`task` is copy, sort or add; `text` the question with its task's name in front."""

    task: str
    text: str
    answer: str


def questions(seed: int) -> Iterator[Question]:
    """Without end; the same ones for the same seed."""
    chooser = random.Random(seed)  # noqa: S311 - not for secrets
    while True:
        yield _TASKS[chooser.randrange(len(_TASKS))](chooser)


def held_out(num: int, seen_seed: int, num_seen: int, seed: int) -> list[Question]:
    """`num` questions from `seed`, none of which is among the first `num_seen` of `seen_seed`, nor there twice."""
    source = questions(seen_seed)
    known = {next(source).text for _ in range(num_seen)}
    found: list[Question] = []
    for question in questions(seed):
        if len(found) == num:
            break
        if question.text not in known:
            known.add(question.text)
            found.append(question)
    return found


def _letters(chooser: random.Random) -> str:
    return "".join(chooser.choice(_LETTERS) for _ in range(chooser.choice(_LENGTHS)))


def _copy(chooser: random.Random) -> Question:
    letters = _letters(chooser)
    return Question("copy", f"copy {letters}", letters)


def _sort(chooser: random.Random) -> Question:
    letters = _letters(chooser)
    return Question("sort", f"sort {letters}", "".join(sorted(letters)))


def _add(chooser: random.Random) -> Question:
    first, second = chooser.randint(0, _MOST), chooser.randint(0, _MOST)
    return Question("add", f"add {first}+{second}", str(first + second))


_TASKS: tuple[Callable[[random.Random], Question], ...] = (_copy, _sort, _add)
