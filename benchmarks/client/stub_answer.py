"""The bytes of the stub's answers: events of a stream with their faults, or one body. Knows no sockets and no time."""

from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks.client.stub_script import MODEL, Behaviour

_WORD = "word "


class Stream:
    """The events of one answer. The fixed parts are encoded once."""

    def __init__(self, body: dict[str, Any], behaviour: Behaviour, *, is_chat: bool) -> None:
        self.behaviour = behaviour
        self.num_tokens = int(body.get("max_tokens", 16)) if behaviour.num_tokens is None else behaviour.num_tokens
        self.is_broken_off = behaviour.close_after_tokens is not None
        self._is_chat = is_chat
        self._num_prompt_tokens = count_prompt(body) if behaviour.num_prompt_tokens is None else behaviour.num_prompt_tokens
        options = body.get("stream_options") or {}
        has_usage = behaviour.usage != "absent"
        self._has_final_usage = has_usage and bool(options.get("include_usage"))
        self._is_counted_along = has_usage and behaviour.has_continuous_usage and bool(options.get("continuous_usage_stats"))
        name = "chat.completion.chunk" if is_chat else "text_completion"
        self._before = f'{{"id":"cmpl-stub","object":"{name}","created":0,"model":"{MODEL}","choices":['.encode()

    def due_s(self, num_sent: int) -> float:
        """When the token `num_sent` is made, from the start of work."""
        return self.behaviour.ttft_s + max(0, num_sent - 1) * self.behaviour.itl_s

    def head(self) -> bytes:
        """What comes at once: for chat, who speaks."""
        return self._event('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}', 0) if self._is_chat else b""

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Each event of output or of a fault, with how many tokens are out by then."""
        behaviour, num_sent = self.behaviour, 0
        end = self.num_tokens if behaviour.close_after_tokens is None else min(self.num_tokens, behaviour.close_after_tokens)
        while num_sent < end:
            if num_sent == behaviour.error_after_tokens:
                yield num_sent, self._error_event()
                return
            if num_sent == behaviour.garbage_after_tokens:
                yield num_sent, self._framed(b'{"choices": [{"text": "wo')
            num_new = min(behaviour.tokens_per_event, end - num_sent)
            num_sent += num_new
            finish = behaviour.finish_reason if num_sent == self.num_tokens else None
            yield num_sent, self._event(self._choice(_WORD * num_new, finish), num_sent)

    def tail(self) -> bytes:
        """Usage and the end of the stream."""
        usage = b""
        if self._has_final_usage:
            usage = self._framed(self._before + b'],"usage":' + msgspec.json.encode(self._usage(self.num_tokens)) + b"}")
        return usage + (self._framed(b"[DONE]") if self.behaviour.has_done else b"")

    def whole(self) -> dict[str, Any]:
        """The answer as one body."""
        text = _WORD * self.num_tokens
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.behaviour.finish_reason}
        choice |= {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        answer: dict[str, Any] = {"id": "cmpl-stub", "model": MODEL, "choices": [choice]}
        return answer if self.behaviour.usage == "absent" else answer | {"usage": self._usage(self.num_tokens)}

    def _choice(self, text: str, finish_reason: str | None) -> str:
        finish = "null" if finish_reason is None else f'"{finish_reason}"'
        if not self._is_chat:
            return f'{{"index":0,"text":"{text}","finish_reason":{finish}}}'
        output = f'"{text}"'
        if self.behaviour.piece == "tool_calls":
            output = f'[{{"index":0,"function":{{"arguments":"{text}"}}}}]'
        return f'{{"index":0,"delta":{{"{self.behaviour.piece}":{output}}},"finish_reason":{finish}}}'

    def _event(self, choice: str, num_sent: int) -> bytes:
        usage = b""
        if self._is_counted_along:
            usage = b',"usage":' + msgspec.json.encode(self._usage(num_sent))
        return self._framed(self._before + choice.encode() + b"]" + usage + b"}")

    def _error_event(self) -> bytes:
        end = self.behaviour.line_end.encode()
        name = b"event: error" + end if self.behaviour.error_form == "event" else b""
        return name + self._framed(msgspec.json.encode(error_body("scripted error in the stream", 500)))

    def _framed(self, data: bytes) -> bytes:
        end = self.behaviour.line_end.encode()
        comment = b": a comment" + end + end if self.behaviour.has_comments else b""
        return comment + b"data: " + data + end + end

    def _usage(self, num_sent: int) -> dict[str, Any]:
        told = num_sent + 1 if self.behaviour.usage == "wrong" and num_sent == self.num_tokens else num_sent
        usage: dict[str, Any] = {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": told,
            "total_tokens": self._num_prompt_tokens + told,
        }
        if self.behaviour.num_cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.behaviour.num_cached_tokens}
        return usage


def count_prompt(body: dict[str, Any]) -> int:
    """A word a token, as everything here is counted."""
    if "messages" in body:
        return sum(len(str(message["content"]).split()) for message in body["messages"])
    prompt = body.get("prompt", "")
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


def error_body(message: str, status: int) -> dict[str, Any]:
    """As OpenAI's servers tell an error."""
    return {"error": {"message": message, "type": "Scripted", "param": None, "code": status}}
