"""Makes prompts of an asked-for number of tokens, as the server will count them, each different from the first block on.

Steps for one prompt: draw words, let the tokenizer cut them to size, put the text back together and count it as the server would; where
the cut tokens do not come back as they were, cut elsewhere. Knows nothing of times and servers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Literal

import numpy as np

from benchmarks.load.plan import Message, Prompt
from benchmarks.load.text_source import TextSource
from benchmarks.load.tokenizers import Tokenizer
from serving.errors import BenchmarkError

PromptForm = Literal["token_ids", "text", "messages"]

FIRST_BLOCK_TOKENS = 16
"""The smallest block in which servers commonly keep prefixes: vLLM's on CUDA. Prompts that differ within it share no block."""

# Each cut moves by what the count was off: the second fits unless pieces merge at the end. Other words do then.
_TRIES_A_CUT = 6
_TRIES_A_PROMPT = 40
# Prompts of a few tokens repeat in the end, and no cache keeps less than a block of them.
_TRIES_TO_DIFFER = 10
# A word is a token or more; so many more words than tokens leave the cut room to move.
_SPARE_WORDS = 16


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a prompt begins with: a text and its tokens' number. What follows it begins with a word of its own."""

    text: str
    num_tokens: int


NO_PREFIX = Prefix("", 0)


@dataclass(frozen=True, slots=True)
class _Measure:
    """One way to count a text, and how much of the count is none of the text's own."""

    count: Callable[[str], int]
    num_overhead_tokens: int


class PromptMaker:
    """Makes prompts of one form with one tokenizer, and remembers how each began. `is_exact`: sizes are those that the server counts."""

    def __init__(self, tokenizer: Tokenizer, form: PromptForm, source: TextSource, rng: np.random.Generator) -> None:
        self._tokenizer = tokenizer
        self._form = form
        self._source = source
        self._rng = rng
        self._seen: set[tuple[int, ...]] = set()
        self._leading_ids = _leading_ids(tokenizer)
        self._num_leading = len(self._leading_ids)
        self._content = _Measure(self._count_content, 0)
        self._whole = self._measure_of_form()
        self.is_exact = tokenizer.is_exact and (form != "messages" or self._whole is not self._content)

    def least_tokens(self, num_prefix_tokens: int = 0) -> int:
        """The fewest tokens that a prompt can have: the template or special tokens, the prefix, and one of its own."""
        return self._whole.num_overhead_tokens + num_prefix_tokens + 1

    def prompt(self, num_tokens: int, prefix: Prefix = NO_PREFIX) -> Prompt:
        """A prompt that the server counts as `num_tokens`, at least `least_tokens`.

        Raises:
            BenchmarkError: the tokenizer's pieces do not add up to the number.
        """
        if self._form == "token_ids":
            return (*self._leading_ids, *self._new_ids(num_tokens - self._num_leading, prefix))
        return self._form_of(self._fit(num_tokens, prefix, self._whole))

    def later_turn(self, num_tokens: int) -> Prompt:
        """What a user says after an answer: `num_tokens` of text; what comes around it is the template's affair. A plain text begins with a
        space, since the answer stands right before it."""
        if self._form == "messages":
            return self._form_of(self._fit(num_tokens, NO_PREFIX, self._content))
        return " " + self.block(num_tokens, is_first=False)

    def prefix(self, num_tokens: int) -> Prefix:
        """A text to put in front of several prompts."""
        return Prefix(self._fit(num_tokens, NO_PREFIX, self._content), num_tokens)

    def block(self, num_tokens: int, *, is_first: bool) -> str:
        """A text of `num_tokens` to be joined with others by a space; one that is not the first is counted with that space in front."""
        if is_first:
            return self._fit(num_tokens, NO_PREFIX, self._content)
        before = Prefix("a", self._count_content("a"))
        return self._fit(before.num_tokens + num_tokens, before, self._content).removeprefix("a ")

    def block_ids(self, num_tokens: int) -> tuple[int, ...]:
        """The same as token ids, which join as they are."""
        return self._new_ids(num_tokens, NO_PREFIX)

    def prompt_of(self, text: str, num_tokens: int) -> Prompt | None:
        """A prompt of `num_tokens` that is the beginning of a given text; None where the text cannot be cut to that number."""
        ids = tuple(self._tokenizer.encode(text))
        cut = self._cut(ids[self._num_leading :], num_tokens, self._whole)
        return None if cut is None else self._form_of(cut)

    def prompt_of_ids(self, ids: Iterable[int], num_tokens: int) -> Prompt:
        """A prompt of the first of these token ids, behind those that a tokenizer puts before any."""
        return (*self._leading_ids, *islice(ids, num_tokens - self._num_leading))

    def _fit(self, num_tokens: int, prefix: Prefix, measure: _Measure) -> str:
        length = num_tokens - measure.num_overhead_tokens
        for _ in range(_TRIES_A_PROMPT):
            text = self._cut(self._new_ids(length, prefix, with_spare=True), num_tokens, measure)
            if text is not None:
                return text
        raise BenchmarkError(f"no text of exactly {num_tokens} tokens could be made with {self._tokenizer.name}: ask for another number")

    def _cut(self, ids: tuple[int, ...], num_tokens: int, measure: _Measure) -> str | None:
        """As much of `ids` as is `num_tokens` when counted; None where no cut is."""
        length = num_tokens - measure.num_overhead_tokens
        for _ in range(_TRIES_A_CUT):
            text = self._tokenizer.decode(ids[:length])
            too_few = num_tokens - measure.count(text)
            if too_few == 0:
                return text
            length += too_few
            if not 0 < length <= len(ids):
                return None
        return None

    def _new_ids(self, num_ids: int, prefix: Prefix, *, with_spare: bool = False) -> tuple[int, ...]:
        """Tokens of a text that begins with the prefix and goes on as none before it: `num_ids`, or more where spare ones are asked for."""
        own = slice(prefix.num_tokens, min(prefix.num_tokens + FIRST_BLOCK_TOKENS - self._num_leading, num_ids))
        for attempt in range(_TRIES_A_PROMPT):
            words = self._source.draw(num_ids - prefix.num_tokens + _SPARE_WORDS, self._rng)
            ids = tuple(self._tokenizer.encode(f"{prefix.text} {words}" if prefix.text else words)[self._num_leading :])
            beginning = ids[own]
            fills_a_block = len(beginning) + self._num_leading >= FIRST_BLOCK_TOKENS
            if beginning not in self._seen or (not fills_a_block and attempt >= _TRIES_TO_DIFFER):
                self._seen.add(beginning)
                return ids if with_spare else ids[:num_ids]
        raise BenchmarkError(f"no new prompt could be made after {len(self._seen)}: ask for fewer requests")

    def _measure_of_form(self) -> _Measure:
        if self._form == "messages":
            num_chat = self._tokenizer.count_chat(_said("a"))
            return self._content if num_chat is None else _Measure(self._count_chat, num_chat - self._count_content("a"))
        return _Measure(lambda text: len(self._tokenizer.encode(text)), self._num_leading)

    def _count_content(self, text: str) -> int:
        return len(self._tokenizer.encode(text)) - self._num_leading

    def _count_chat(self, text: str) -> int:
        counted = self._tokenizer.count_chat(_said(text))
        if counted is None:
            raise BenchmarkError(f"{self._tokenizer.name} counted messages once and then did not")
        return counted

    def _form_of(self, text: str) -> Prompt:
        return _said(text) if self._form == "messages" else text


def _said(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def _leading_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that stand before a text: what two texts that begin differently have in common."""
    pairs = zip(tokenizer.encode("one"), tokenizer.encode("two"), strict=False)
    return tuple(here for here, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
