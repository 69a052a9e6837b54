"""An OpenAI chat request as Converse's parameters: text only. A field that would have no effect is refused with its name.

By hand: Lambda's runtime has no pydantic, and the zip brings nothing but these sources, so that there is little to load at a cold start.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import InvalidRequest, UnknownModel

_NUMBERS = {"temperature": "temperature", "top_p": "topP"}
_FIELDS = frozenset({"messages", "model", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", *_NUMBERS})
_ROLES = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True)
class ChatRequest:
    """`parameters` are those of both Converse and ConverseStream."""

    parameters: Mapping[str, Any]
    stream: bool


def read_chat(raw: bytes, model: str) -> ChatRequest:
    """Raises InvalidRequest naming the field, UnknownModel for another `model` than the one that answers here."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body is no JSON object")
    body = {name: value for name, value in body.items() if value is not None}
    if unknown := sorted(body.keys() - _FIELDS):
        raise InvalidRequest(f"{unknown[0]} has no effect here; known are {', '.join(sorted(_FIELDS))}", param=unknown[0])
    if body.get("model", "") not in ("", model):
        raise UnknownModel(f"model {body['model']!r} is not here; {model!r} is", param="model")
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise InvalidRequest("stream is true or false", param="stream")
    system, messages = _messages(body.get("messages"))
    parameters: dict[str, Any] = {"modelId": model, "messages": messages, "inferenceConfig": _inference(body)}
    return ChatRequest(parameters | ({"system": system} if system else {}), stream)


def _inference(body: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, theirs in _NUMBERS.items():
        if name in body:
            config[theirs] = _number(name, body[name])
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body:
            if not isinstance(body[name], int) or isinstance(body[name], bool) or body[name] < 1:
                raise InvalidRequest(f"{name} is a whole number from 1", param=name)
            config["maxTokens"] = body[name]
    if "stop" in body:
        stop = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
        if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
            raise InvalidRequest("stop is a text or a list of texts", param="stop")
        config["stopSequences"] = stop
    return config


def _number(name: str, value: Any) -> float:
    # Converse's range; OpenAI's temperature goes to 2.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InvalidRequest(f"{name} is a number from 0 to 1", param=name)
    return float(value)


def _messages(messages: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System texts, and the others with neighbours of one role joined, since Converse wants the roles to alternate."""
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages is a list of at least one", param="messages")
    system: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        role, blocks = _message(message, f"messages[{index}]")
        if role in ("system", "developer"):
            system += blocks
        elif said and said[-1]["role"] == role:
            said[-1]["content"] += blocks
        else:
            said.append({"role": role, "content": blocks})
    return system, said


def _message(message: Any, where: str) -> tuple[str, list[dict[str, Any]]]:
    if not isinstance(message, dict) or message.keys() - {"role", "content"}:
        raise InvalidRequest(f"{where} is an object of role and content: only text is taken here", param=where)
    if message.get("role") not in _ROLES:
        raise InvalidRequest(f"{where}.role is one of {', '.join(sorted(_ROLES))}", param=f"{where}.role")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(_is_text(part) for part in parts):
        raise InvalidRequest(f"{where}.content is a text, or a list of parts of type text", param=f"{where}.content")
    return message["role"], [{"text": part["text"]} for part in parts]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
