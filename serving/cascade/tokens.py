"""The tokens of an OpenAI answer, or of one of its chunks, as `token_signals` takes them."""

from collections.abc import Mapping
from typing import Any

from serving.cascade.token_signals import Token
from serving.engine.interface import Kind

_LEAST_ALTERNATIVES = 2


def tokens_of(kind: Kind, answer: Mapping[str, Any]) -> list[Token]:
    """Those of the first choice, as far as the answer tells their log-probabilities and two alternatives. A completion tells alternatives
    by their text, where two that look alike are one."""
    logprobs = next((choice.get("logprobs") for choice in answer["choices"] if choice.get("index", 0) == 0), None)
    if not isinstance(logprobs, dict):
        return []
    if kind == "chat":
        tokens = [
            (token["logprob"], [top["logprob"] for top in token.get("top_logprobs") or ()]) for token in logprobs.get("content") or ()
        ]
    else:
        rows = zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
        tokens = [(logprob, list(top.values())) for logprob, top in rows if logprob is not None and top]
    return [(logprob, alternatives) for logprob, alternatives in tokens if len(alternatives) >= _LEAST_ALTERNATIVES]
