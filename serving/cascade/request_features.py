"""What can be told of a request before anything is generated: names and numbers for the rules of a policy. Pure; far below a millisecond.

Lengths count everything that is sent. What the text is like is read from the last message of the user, at most its first `_MAX_READ`
characters; numbers of things are per hundred words, so that a long text is not taken for a mathematical one.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import expm1, log1p
from typing import Any

NAMES = (
    "log_conversation_characters",
    "log_last_characters",
    "log_words",
    "log_lines",
    "num_turns",
    "has_system_prompt",
    "mean_word_characters",
    "numbers",
    "digits",
    "math_signs",
    "code_signs",
    "code_words",
    "code_fences",
    "capitals",
    "non_ascii",
    "english_words",
    "questions",
    "fact_words",
    "reason_words",
    "condition_words",
    "negations",
    "quantity_words",
    "choices",
    "quotes",
    "commas",
)
"""Every name that `request_features` gives, always all of them."""
_COUNTS = {
    "log_conversation_characters": "conversation_characters",
    "log_last_characters": "last_characters",
    "log_words": "words",
    "log_lines": "line_feeds",
}
PLAIN_NAMES = tuple(_COUNTS.get(name, name) for name in NAMES)
"""Every name that `plain` gives."""
_MAX_READ = 4_000
_PER = 100.0
_WORDS_OF = {
    # "language": the share of the commonest words of English prose; near nothing in another language and in code.
    "english_words": "the of and to a in is that it for was on are as with his they at be this from have or by",
    "fact_words": "what which who whom whose where when name list define",
    "reason_words": "why how explain prove derive show compare analyze analyse",
    "condition_words": "if then unless suppose assume given therefore because while until after before",
    "negations": "not no never except neither nor without false incorrect",
    "code_words": "def class import function return void const select python javascript sql regex",
    "quantity_words": "each every total many much half twice double times percent more less than per remaining altogether",
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS_OF.items() for word in words.split()}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")
_CODE_SIGNS = (*"{};[]", "=>", "->", "==", "()")
_MATH_SIGNS = "=+*/^<>%$\\√∫∑≤≥"
_CHOICE = re.compile(r"^\s*\(?[A-Ea-e1-5][.)]\s", re.MULTILINE)


def request_features(request: str | Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The features of a prompt, or of messages as /v1/chat/completions takes them; of their content only text counts."""
    messages: Sequence[Mapping[str, Any]] = [{"role": "user", "content": request}] if isinstance(request, str) else request
    texts = [text_of(message) for message in messages]
    asked = [text for text, message in zip(texts, messages, strict=True) if message.get("role") == "user"]
    last = (asked or texts or [""])[-1]
    return {
        "log_conversation_characters": log1p(sum(map(len, texts))),
        "log_last_characters": log1p(len(last)),
        "num_turns": float(len(asked)),
        "has_system_prompt": float(any(message.get("role") in ("system", "developer") for message in messages)),
        **_of_text(last[:_MAX_READ]),
    }


def plain(features: Mapping[str, float]) -> dict[str, float]:
    """Features as people write rules on them: counts instead of their logarithms."""
    return {_COUNTS.get(name, name): round(expm1(value)) if name in _COUNTS else value for name, value in features.items()}


def text_of(message: Mapping[str, Any]) -> str:
    """The text in a message's `content`, be it a string, a list of parts, or missing."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _of_text(text: str) -> dict[str, float]:
    words = _WORD.findall(text)
    numbers = _NUMBER.findall(text)
    num_words = max(1, len(words) + len(numbers))
    kinds = Counter(map(_KIND_OF_WORD.get, _WORD.findall(text.lower())))
    counts = {
        **{kind: kinds[kind] for kind in _WORDS_OF},
        "numbers": len(numbers),
        "digits": sum(map(len, numbers)),
        "math_signs": sum(map(text.count, _MATH_SIGNS)),
        "code_signs": sum(map(text.count, _CODE_SIGNS)),
        "capitals": sum(word[0].isupper() for word in words),
        "quotes": text.count('"') + text.count("“"),
        "commas": text.count(","),
    }
    return {
        "log_words": log1p(len(words)),
        "log_lines": log1p(text.count("\n")),
        "mean_word_characters": sum(map(len, words)) / max(1, len(words)),
        "non_ascii": _PER * (len(text) - len(text.encode("ascii", "ignore"))) / max(1, len(text)),
        "questions": float(text.count("?") + text.count("\uff1f")),
        "code_fences": float(text.count("```")),
        "choices": float(len(_CHOICE.findall(text))),
        **{name: _PER * count / num_words for name, count in counts.items()},
    }
