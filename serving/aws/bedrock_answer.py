"""What Converse answers, as OpenAI's chat completion, and the events of ConverseStream as its chunks. No I/O.

Reasoning goes where vLLM has it, in `reasoning`. Usage counts the prompt whole, as OpenAI does; Converse leaves out what its cache had.
Citations, signatures and traces have no place in OpenAI's answers.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from serving.errors import TierFailure

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


def completion(who: str, model: str, request_id: str, answer: Mapping[str, Any]) -> bytes:
    """A whole answer. Raises TierFailure for one that OpenAI has no form for."""
    try:
        blocks, reason, usage = answer["output"]["message"]["content"], answer["stopReason"], answer["usage"]
        message = {"role": "assistant", **_message(blocks)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(who, reason)}
        return json.dumps({**_head("chat.completion", model, request_id), "choices": [choice], "usage": _usage(usage)}).encode()
    except (KeyError, TypeError) as error:
        raise TierFailure(f"{who} answered with something else than Converse's answer", reason="failed") from error


class ChunkWriter:
    """The chunks of one stream, event by event. `is_finished`: the model has said why it stopped."""

    def __init__(self, who: str, model: str, request_id: str) -> None:
        self._who = who
        self._head = _head("chat.completion.chunk", model, request_id)
        self._has_begun = False
        self._num_tool_calls = 0
        self.is_finished = False

    def take(self, name: str, event: Mapping[str, Any]) -> str | None:
        """The chunk that an event makes, if it makes one.

        Raises:
            TierFailure: OpenAI has no form for it.
        """
        try:
            return self._chunk(name, event)
        except (KeyError, TypeError) as error:
            raise TierFailure(f"{self._who} sent a {name} that is none of Converse's", reason="failed") from error

    def _chunk(self, name: str, event: Mapping[str, Any]) -> str | None:
        if name == "contentBlockStart" and "toolUse" in event["start"]:
            self._num_tool_calls += 1
            use = event["start"]["toolUse"]
            return self._delta({"tool_calls": [self._call(id=use["toolUseId"], type="function", name=use["name"], arguments="")]})
        if name == "contentBlockDelta":
            delta = event["delta"]
            if "text" in delta:
                return self._delta({"content": delta["text"]})
            if "toolUse" in delta:
                return self._delta({"tool_calls": [self._call(arguments=delta["toolUse"]["input"])]})
            if text := delta.get("reasoningContent", {}).get("text"):
                return self._delta({"reasoning": text})
        if name == "messageStop":
            reason = _finish_reason(self._who, event["stopReason"])
            self.is_finished = True
            return self._delta({}, reason)
        if name == "metadata":
            return json.dumps({**self._head, "choices": [], "usage": _usage(event["usage"])})
        return None

    def _call(self, *, arguments: str, name: str | None = None, **fields: str) -> dict[str, Any]:
        function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
        return {"index": self._num_tool_calls - 1, **fields, "function": function}

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        # The role comes with the first word, not before it: until then another model may still be asked.
        first = {} if self._has_begun else {"role": "assistant"}
        self._has_begun = True
        choice = {"index": 0, "delta": first | delta, "logprobs": None, "finish_reason": finish_reason}
        return json.dumps({**self._head, "choices": [choice]})


def _head(form: str, model: str, request_id: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request_id}", "object": form, "created": int(time.time()), "model": model}


def _message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    text = "".join(block["text"] for block in blocks if "text" in block)
    reasoning = "".join(
        block["reasoningContent"].get("reasoningText", {}).get("text", "") for block in blocks if "reasoningContent" in block
    )
    calls = [_tool_call(block["toolUse"]) for block in blocks if "toolUse" in block]
    return {"content": text or None} | ({"reasoning": reasoning} if reasoning else {}) | ({"tool_calls": calls} if calls else {})


def _tool_call(use: dict[str, Any]) -> dict[str, Any]:
    return {"id": use["toolUseId"], "type": "function", "function": {"name": use["name"], "arguments": json.dumps(use["input"])}}


def _finish_reason(who: str, reason: str) -> str:
    if reason not in _FINISH_REASONS:
        raise TierFailure(f"{who} stopped with {reason}, for which OpenAI has no word", reason="failed")
    return _FINISH_REASONS[reason]


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    read, written = usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)
    prompt, output = usage["inputTokens"] + read + written, usage["outputTokens"]
    details = {"cached_tokens": read, "cache_write_tokens": written}
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, "prompt_tokens_details": details}
