"""The body of each request, as the target's routes take it: text, token ids or messages, and what a measurement needs beside them."""

from collections.abc import Sequence
from typing import Any

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Message, Plan, Prompt, Request
from serving.errors import BenchmarkError


def is_chat(spec: TargetSpec) -> bool:
    """Whether the target is sent messages."""
    return spec.api == "chat" or (spec.api != "completions" and spec.chat_bodies)


def is_streamed(spec: TargetSpec) -> bool:
    """Whether the target answers piece by piece."""
    return spec.api != "sagemaker"


def body_of(request: Request, prompt: Prompt, spec: TargetSpec, capabilities: Capabilities) -> dict[str, Any]:
    """The body for `request`, `prompt` standing for its own where it has a conversation before it. `extra_body` has the last word."""
    body: dict[str, Any] = {}
    if capabilities.model is not None:
        body["model"] = capabilities.model
    if is_chat(spec):
        body["messages"] = messages_of(prompt)
    else:
        body["prompt"] = prompt
    body["max_tokens"] = request.max_tokens
    if request.ignore_eos and capabilities.accepts_ignore_eos:
        body["ignore_eos"] = True
    if is_streamed(spec):
        body["stream"] = True
        if capabilities.accepts_stream_options:
            options = {"include_usage": True}
            if capabilities.accepts_continuous_usage:
                options["continuous_usage_stats"] = True
            body["stream_options"] = options
    return body | dict(spec.extra_body)


def messages_of(prompt: Prompt) -> list[Message]:
    """A text is what the user says."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [message for message in prompt if isinstance(message, dict)]


def with_history(history: Prompt | None, answer: str, prompt: Prompt, spec: TargetSpec) -> Prompt:
    """`prompt` with everything said before it put in front: as messages for chat, else as one text."""
    if history is None:
        return prompt
    if is_chat(spec):
        return (*messages_of(history), {"role": "assistant", "content": answer}, *messages_of(prompt))
    return f"{history}{answer}{prompt}"


def check_prompts(plan: Plan, spec: TargetSpec) -> None:
    """Refuse a plan that the target cannot be sent, before anything is.

    Raises:
        BenchmarkError: token ids for chat, messages for completions, or a conversation in token ids.
    """
    for request in plan.requests:
        form = _form(request.prompt)
        if is_chat(spec) and form == "token ids":
            raise BenchmarkError(f"request {request.number} has token ids and --api {spec.api} is sent messages: give texts or messages")
        if not is_chat(spec) and form == "messages":
            raise BenchmarkError(f"request {request.number} has messages, which --api {spec.api} is not sent here: take --api chat")
        if request.conversation is not None and form == "token ids":
            raise BenchmarkError(f"request {request.number} is a turn of a conversation in token ids: give texts or messages")


def _form(prompt: Prompt | Sequence[Any]) -> str:
    if isinstance(prompt, str):
        return "text"
    return "messages" if any(isinstance(part, dict) for part in prompt) else "token ids"
