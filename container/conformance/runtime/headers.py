"""Which headers pass between client and container, under which names; everything else is stripped, as the platform does.

Renamed, by botocore's model: a streaming call carries the client's Accept as X-Amzn-SageMaker-Accept, and its answer the container's
Content-Type as X-Amzn-SageMaker-Content-Type. Kept back, by assumption: Prefix-Aware-Id, a hint for the router. Not imitated: on a
multi-model endpoint Target-Model becomes the path /models/NAME/invoke, and an adapter component becomes an Adapter-Identifier header.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from container.conformance.runtime.errors import PlatformError, validation_error

_ASCII = r"[\x00-\x7f]*"
_NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"
_PRINTABLE = r"[\x21-\x7e][\x20-\x7e]*"


@dataclass(frozen=True)
class Rule:
    """One member of the request: where the client puts it, where the container finds it, and what it may be."""

    member: str
    header: str
    pattern: str
    longest: int
    container_header: str | None
    """`None`: the platform keeps it."""


def _amzn(member: str, name: str, pattern: str, longest: int) -> Rule:
    header = f"X-Amzn-SageMaker-{name}"
    return Rule(member, header, pattern, longest, header)


_CONTENT_TYPE = Rule("contentType", "Content-Type", _ASCII, 1024, "Content-Type")
_SHARED = (
    _CONTENT_TYPE,
    _amzn("customAttributes", "Custom-Attributes", _ASCII, 1024),
    _amzn("targetVariant", "Target-Variant", _NAME, 63),
    _amzn("targetContainerHostname", "Target-Container-Hostname", _NAME, 63),
    _amzn("inferenceId", "Inference-Id", _PRINTABLE, 64),
    _amzn("inferenceComponentName", "Inference-Component", r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?", 63),
    Rule("prefixAwareId", "X-Amzn-SageMaker-Prefix-Aware-Id", _PRINTABLE, 64, None),
)
INVOKE_RULES = (
    *_SHARED,
    Rule("accept", "Accept", _ASCII, 1024, "Accept"),
    _amzn("targetModel", "Target-Model", _PRINTABLE, 1024),
    _amzn("enableExplanations", "Enable-Explanations", ".+", 64),
    _amzn("sessionId", "Session-Id", rf"NEW_SESSION|{_NAME}", 256),
)
STREAM_RULES = (
    *_SHARED,
    Rule("accept", "X-Amzn-SageMaker-Accept", _ASCII, 1024, "Accept"),
    # Without NEW_SESSION: a session cannot be created by a streaming call.
    _amzn("sessionId", "Session-Id", _NAME, 256),
)
OPENAI_RULES = (_CONTENT_TYPE, Rule("accept", "Accept", _ASCII, 1024, "Accept"))
"""Not documented; a chat client sends no others that matter."""

_ANSWERED = ("X-Amzn-SageMaker-Custom-Attributes", "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id")
_STREAM_ANSWERED = ("X-Amzn-SageMaker-Custom-Attributes",)


def to_container(rules: tuple[Rule, ...], headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that the container gets.

    Raises:
        PlatformError: ValidationError in AWS's form, naming member, value and rule.
    """
    passed = {}
    for rule in rules:
        value = headers.get(rule.header)
        if value is None:
            continue
        if len(value) > rule.longest:
            raise _breaks(rule, value, f"Member must have length less than or equal to {rule.longest}")
        if re.fullmatch(rule.pattern, value) is None:
            raise _breaks(rule, value, f"Member must satisfy regular expression pattern: {rule.pattern}")
        if rule.container_header is not None:
            passed[rule.container_header] = value
    return passed


def _breaks(rule: Rule, value: str, constraint: str) -> PlatformError:
    # The model marks custom attributes as sensitive, and AWS then leaves the value out.
    shown = "" if rule.member == "customAttributes" else f" '{value}'"
    return validation_error(f"1 validation error detected: Value{shown} at '{rule.member}' failed to satisfy constraint: {constraint}")


def to_client(headers: Mapping[str, str], variant_name: str) -> dict[str, str]:
    """The headers of InvokeEndpoint's answer, from the container's."""
    return _variant(variant_name) | {name: headers[name] for name in ("Content-Type", *_ANSWERED) if name in headers}


def to_stream_client(headers: Mapping[str, str], variant_name: str) -> dict[str, str]:
    """The headers of the streaming answer, but for its own Content-Type. The model has none for sessions there."""
    answered = {name: headers[name] for name in _STREAM_ANSWERED if name in headers}
    content_type = {"X-Amzn-SageMaker-Content-Type": headers["Content-Type"]} if "Content-Type" in headers else {}
    return _variant(variant_name) | content_type | answered


def to_openai_client(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of the OpenAI path's answer, which is the container's."""
    return {name: headers[name] for name in ("Content-Type",) if name in headers}


def _variant(name: str) -> dict[str, str]:
    return {"x-Amzn-Invoked-Production-Variant": name}
