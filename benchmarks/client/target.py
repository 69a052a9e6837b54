"""Where requests go, told in a way that can be handed to another process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Api = Literal["completions", "chat", "invocations", "sagemaker", "sagemaker-stream"]


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """`completions` and `chat`: `url` is an OpenAI-compatible server's base (`http://host:port`, with or without `/v1`); `invocations`:
    the same bodies to `/invocations`; the two of SageMaker: InvokeEndpoint and InvokeEndpointWithResponseStream through boto3, to
    `endpoint_name`, `url` being boto3's `endpoint_url` or None for AWS itself. `model` may be None where the server does not need it.
    `extra_body` goes into every body. `chat_bodies`: whether `/invocations` and SageMaker are sent `messages` rather than `prompt`."""

    api: Api
    url: str | None
    model: str | None = None
    endpoint_name: str | None = None
    region: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    chat_bodies: bool = False
