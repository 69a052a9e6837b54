"""The tokens of an OpenAI answer, or of one of its chunks, as `token_signals` takes them."""

from collections.abc import Mapping
from typing import Any

from serving.cascade.token_signals import Token
from serving.engine.interface import Kind
from serving.errors import TierFailure

_LEAST_ALTERNATIVES = 2


def tokens_of(kind: Kind, answer: Mapping[str, Any]) -> list[Token]:
    """Those of the first choice, as far as the answer tells their log-probabilities and two alternatives. A completion tells alternatives
    by their text, where two that look alike are one.

    Raises:
        TierFailure: it tells them in no known shape.
    """
    logprobs = next((choice.get("logprobs") for choice in answer["choices"] if choice.get("index", 0) == 0), None)
    if logprobs is None:
        return []
    try:
        tokens = _of_chat(logprobs) if kind == "chat" else _of_completion(logprobs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TierFailure("it tells log-probabilities in no known shape", reason="failed") from error
    return [(logprob, alternatives) for logprob, alternatives in tokens if len(alternatives) >= _LEAST_ALTERNATIVES]


def _of_chat(logprobs: Mapping[str, Any]) -> list[Token]:
    return [
        (float(token["logprob"]), [float(top["logprob"]) for top in token.get("top_logprobs") or ()]) for token in logprobs["content"] or ()
    ]


def _of_completion(logprobs: Mapping[str, Any]) -> list[Token]:
    rows = zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    return [(float(logprob), [float(other) for other in top.values()]) for logprob, top in rows if logprob is not None and top]
