"""OpenAI chat requests that Bedrock's Converse can honour, and the same as Converse's parameters. No I/O.

The classes name every field that has its counterpart; another one, or a value that Converse has not, is an error with its path. A null is
an absent field. Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MAX_STOP_SEQUENCES = 2500


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Fields):
    """Text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Fields):
    """Of an image that comes along; Converse fetches none."""

    url: str = Field(pattern=r"^data:image/(png|jpeg|gif|webp);base64,")
    detail: Literal["auto"] = "auto"


class ImagePart(_Fields):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(_Fields):
    """What Converse takes beside the messages."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserMessage(_Fields):
    """What the user says."""

    role: Literal["user"]
    content: str | list[Part]


class CalledFunction(_Fields):
    """A function's name and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(_Fields):
    """A call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(_Fields):
    """What the model said. Its reasoning is not sent: Converse wants it back with a signature, for which OpenAI has no place."""

    role: Literal["assistant"]
    content: str | list[TextPart] = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = []


class ToolMessage(_Fields):
    """What a call brought."""

    role: Literal["tool"]
    tool_call_id: str
    content: str | list[TextPart]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(_Fields):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    strict: bool | None = None


class Tool(_Fields):
    """A tool; Converse knows functions of the caller."""

    type: Literal["function"]
    function: Function


class FunctionName(_Fields):
    """The name alone."""

    name: str


class NamedTool(_Fields):
    """The one function to call."""

    type: Literal["function"]
    function: FunctionName


class StreamOptions(_Fields):
    """Usage always comes, so it makes no difference here."""

    include_usage: bool = True


class ChatRequest(_Fields):
    """The whole request."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: str | Annotated[list[str], Field(max_length=_MAX_STOP_SEQUENCES)] | None = None
    tools: list[Tool] = []
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1


def without_nulls(value: Any) -> Any:
    """`value` without the keys that hold null: clients send back what they were sent."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
