"""A client's request as the tiers are asked it, and their answers as the client is to see them.

Besides what the client wants, the log-probabilities of the two likeliest tokens are asked of a tier whose tokens are judged, and of every
stream its usage. What the client did not ask for is taken out again; nothing else of an answer is touched.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from serving.cascade.costs import Usage
from serving.cascade.request_features import request_features
from serving.engine.interface import Kind

_NUM_TOP = 2
_ALL = -1
"""vLLM's word for log-probabilities of the whole vocabulary."""
_BOOLEAN = TypeAdapter(bool)


class Asked:
    """One request. Fields of a wrong type are left as they are: the tier that is asked refuses them by name."""

    def __init__(self, kind: Kind, body: Mapping[str, Any]) -> None:
        self.kind = kind
        self.body = {name: value for name, value in body.items() if name != "model"}
        self.is_stream = _is_true(body.get("stream"))
        if self.is_stream:
            self.body["stream"] = True
        options = body.get("stream_options")
        self._options: dict[str, Any] = options if isinstance(options, dict) else {}
        self.wants_usage = bool(self._options.get("include_usage"))
        self._wants_running_usage = self.wants_usage and bool(self._options.get("continuous_usage_stats"))

    def unjudgeable(self) -> str | None:
        """The field that leaves no single answer whose tokens could be judged; None if there is one."""
        if self.body.get("n") not in (None, 1):
            return "n"
        for name in ("echo", "use_beam_search", "logprob_token_ids"):
            if self.body.get(name):
                return name
        if self.body.get("include_reasoning") is False:
            # vLLM tells no log-probabilities of tokens that it hides.
            return "include_reasoning"
        return None if self.kind == "chat" or isinstance(self.body.get("prompt"), str) else "prompt"

    @cached_property
    def features(self) -> Mapping[str, float] | None:
        """`request_features`; None where what is asked is not one text: several prompts, token ids."""
        messages = self._messages()
        return None if messages is None else request_features(messages)

    def for_tier(self, sampling: Mapping[str, Any], *, is_judged: bool, tells_running_usage: bool) -> dict[str, Any]:
        """The body to send. `sampling`: what holds where the client says nothing, or null. `tells_running_usage`: the tier can say with
        every chunk how much it has used."""
        more = {name: value for name, value in sampling.items() if self.body.get(name) is None}
        if self.is_stream and isinstance(self.body.get("stream_options"), dict | None):
            more["stream_options"] = {**self._options, "include_usage": True}
            if tells_running_usage:
                more["stream_options"]["continuous_usage_stats"] = True
        if is_judged:
            more |= self._logprobs()
        return {**self.body, **more}

    def restore(self, answer: dict[str, Any], *, is_judged: bool) -> None:
        """Take out of a chunk, or of a whole answer, what only the cascade asked for."""
        if self.is_stream and not (self._wants_running_usage and answer["choices"]):
            answer.pop("usage", None)
        if is_judged:
            for choice in answer["choices"]:
                _restore_logprobs(choice, self._num_top_wanted())

    def _messages(self) -> list[dict[str, Any]] | None:
        if self.kind == "completion":
            prompt = self.body.get("prompt")
            return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else None
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) and all(isinstance(message, dict) for message in messages) else None

    def _logprobs(self) -> dict[str, Any]:
        wanted = self._num_top_wanted()
        if not (wanted is None or _is_number_of_tokens(wanted)):
            return {}
        if self.kind == "completion":
            return {"logprobs": _at_least_two(wanted)}
        if self.body.get("logprobs") is True or not (self.body.get("logprobs") or self.body.get("top_logprobs")):
            return {"logprobs": True, "top_logprobs": _at_least_two(wanted)}
        return {}

    def _num_top_wanted(self) -> Any:
        """How many likely tokens the client wants beside each; None if it wants no log-probabilities at all."""
        if self.kind == "completion":
            return self.body.get("logprobs")
        return (self.body.get("top_logprobs") or 0) if self.body.get("logprobs") else None


def usage_of(answer: Mapping[str, Any]) -> Usage | None:
    """What a chunk, or a whole answer, says that it used."""
    usage = answer.get("usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        return None
    num_completion = usage.get("completion_tokens")
    return Usage(usage["prompt_tokens"], num_completion if isinstance(num_completion, int) else 0)


def _is_true(value: Any) -> bool:
    """As vLLM reads it, to which 1 and "true" are true."""
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError:
        return False


def _is_number_of_tokens(wanted: Any) -> bool:
    return type(wanted) is int and wanted >= _ALL


def _at_least_two(wanted: int | None) -> int:
    return wanted if wanted == _ALL else max(wanted or 0, _NUM_TOP)


def _restore_logprobs(choice: dict[str, Any], num_wanted: Any) -> None:
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return
    if num_wanted is None:
        choice["logprobs"] = None
    elif num_wanted == _ALL or not _is_number_of_tokens(num_wanted):
        # The tier was asked what the client asked.
        return
    elif "content" in logprobs:
        for token in logprobs["content"] or ():
            token["top_logprobs"] = (token.get("top_logprobs") or [])[:num_wanted]
    else:
        # vLLM gives the token itself and so many others: `_create_completion_logprobs` of openai/completion/serving.py.
        logprobs["top_logprobs"] = [top and dict(list(top.items())[: num_wanted + 1]) for top in logprobs["top_logprobs"]]
