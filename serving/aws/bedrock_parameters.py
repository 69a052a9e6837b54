"""A chat request as the parameters of Converse and ConverseStream. No I/O.

System messages go beside the others wherever they stood; neighbours of one role become one message, for Converse wants the roles to
alternate; the results of tools are said by the user.
"""

import base64
import binascii
import json
from typing import Any

from serving.aws.bedrock_request import (
    AssistantMessage,
    ChatRequest,
    Function,
    ImagePart,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    ToolMessage,
)
from serving.errors import InvalidRequest

_NOTHING = TextPart(type="text", text="")


def converse_parameters(request: ChatRequest, model_id: str) -> dict[str, Any]:
    """What botocore's `converse` and `converse_stream` take.

    Raises:
        InvalidRequest: the arguments of a tool call are no JSON object, or an image is no base64.
    """
    parameters: dict[str, Any] = {"modelId": model_id, "messages": _messages(request.messages)}
    if system := [block for message in request.messages if isinstance(message, SystemMessage) for block in _blocks(message.content)]:
        parameters["system"] = system
    if inference := _inference(request):
        parameters["inferenceConfig"] = inference
    if request.tools and request.tool_choice != "none":
        parameters["toolConfig"] = {"tools": [_tool(tool.function) for tool in request.tools], **_choice(request)}
    return parameters


def _inference(request: ChatRequest) -> dict[str, Any]:
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    values = {
        "maxTokens": request.max_completion_tokens or request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": stop or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            continue
        role, blocks = "assistant" if isinstance(message, AssistantMessage) else "user", _content(message, f"messages[{index}]")
        if said and said[-1]["role"] == role:
            said[-1]["content"] += blocks
        elif blocks:
            said.append({"role": role, "content": blocks})
    return said


def _content(message: Message, where: str) -> list[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        return [{"toolResult": {"toolUseId": message.tool_call_id, "content": _blocks(message.content)}}]
    blocks = _blocks(message.content, f"{where}.content")
    if isinstance(message, AssistantMessage):
        for number, call in enumerate(message.tool_calls):
            arguments = _object(call.function.arguments, f"{where}.tool_calls[{number}].function.arguments")
            blocks.append({"toolUse": {"toolUseId": call.id, "name": call.function.name, "input": arguments}})
    return blocks


def _blocks(content: str | list[TextPart] | list[TextPart | ImagePart], where: str = "") -> list[dict[str, Any]]:
    # Converse refuses a text that is empty, as an answer that only calls tools has it, and a message without content.
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_block(part, f"{where}[{index}].image_url.url") for index, part in enumerate(content) if part != _NOTHING]


def _block(part: TextPart | ImagePart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    kind, _, data = part.image_url.url.partition(";base64,")
    try:
        return {"image": {"format": kind.removeprefix("data:image/"), "source": {"bytes": base64.b64decode(data, validate=True)}}}
    except binascii.Error as error:
        raise InvalidRequest(f"{where} is no base64: {error}", param=where) from error


def _object(arguments: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments or "{}")
    except ValueError as error:
        raise InvalidRequest(f"{where} is no JSON: {error}", param=where) from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} is no JSON object", param=where)
    return value


def _tool(function: Function) -> dict[str, Any]:
    told = function.model_dump(exclude_none=True, exclude={"parameters"})
    return {"toolSpec": {**told, "inputSchema": {"json": function.parameters}}}


def _choice(request: ChatRequest) -> dict[str, Any]:
    if isinstance(request.tool_choice, NamedTool):
        return {"toolChoice": {"tool": {"name": request.tool_choice.function.name}}}
    return {"toolChoice": {"any": {}}} if request.tool_choice == "required" else {}
