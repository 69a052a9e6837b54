"""The two that can answer: a model of Bedrock, or a SageMaker endpoint that speaks OpenAI's bodies itself.

Nothing is sent twice: a generation that is slow would be paid for again. The caller is told to come back instead.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.config
from botocore import exceptions

from serving.aws.bedrock_answer import ChunkWriter, completion
from serving.aws.lambda_function.request import read_chat
from serving.errors import BodyTooLarge, InvalidRequest, NotReady, Overloaded, Reason, RequestError, TierFailure

_CONNECT_TIMEOUT_S = 5.0
_THROTTLED = frozenset({"throttlingexception", "servicequotaexceededexception", "toomanyrequestsexception"})
_NOT_READY = frozenset({"modelnotreadyexception", "serviceunavailableexception", "serviceunavailable"})
_CALLERS = frozenset({"validationexception"})
_CONTAINERS = "ModelError"
"""SageMaker's, for whatever its container answered that is no answer; that is inside."""
_CONTAINERS_REFUSALS: Mapping[int, Callable[[str], RequestError]] = {
    400: InvalidRequest,
    413: BodyTooLarge,
    422: InvalidRequest,
    429: Overloaded,
    503: NotReady,
}


@dataclass(frozen=True)
class Answer:
    """Bytes as they come. The first of them has been waited for by whoever takes one, so that a failure before it is a status."""

    content_type: str
    pieces: Generator[bytes, None, None]

    @property
    def is_event_stream(self) -> bool:
        return self.content_type.startswith("text/event-stream")


class Bedrock:
    """`model` is what Converse takes as modelId. An answer ends `timeout_s` after its request, whole or not."""

    def __init__(self, model: str, *, region: str, timeout_s: float) -> None:
        self._model = model
        self._who = f"Bedrock model {model}"
        self._timeout_s = timeout_s
        self._client = _client("bedrock-runtime", region, timeout_s)

    def ask(self, raw: bytes, content_type: str) -> Answer:
        """Raises RequestError for what is known before the first byte."""
        request = read_chat(raw, self._model)
        request_id, ends_at = uuid.uuid4().hex, time.monotonic() + self._timeout_s
        try:
            if request.stream:
                stream = self._client.converse_stream(**request.parameters)["stream"]
                return Answer("text/event-stream", chunks(self._who, stream, ChunkWriter(self._who, self._model, request_id), ends_at))
            answer = self._client.converse(**request.parameters)
        except (exceptions.ClientError, exceptions.BotoCoreError) as error:
            raise refusal(self._who, error) from error
        return Answer("application/json", _whole(completion(self._who, self._model, request_id, answer)))


class Endpoint:
    """A SageMaker endpoint, or an inference component of it. Bodies and answers pass as they are."""

    def __init__(self, name: str, component: str | None, *, region: str, timeout_s: float) -> None:
        self._who = f"SageMaker endpoint {name}"
        self._target = {"EndpointName": name} | ({"InferenceComponentName": component} if component else {})
        self._timeout_s = timeout_s
        self._client = _client("sagemaker-runtime", region, timeout_s)

    def ask(self, raw: bytes, content_type: str) -> Answer:
        """Raises RequestError for what is known before the first byte."""
        ends_at = time.monotonic() + self._timeout_s
        try:
            answer = self._client.invoke_endpoint_with_response_stream(**self._target, Body=raw, ContentType=content_type)
        except (exceptions.ClientError, exceptions.BotoCoreError) as error:
            raise refusal(self._who, error) from error
        return Answer(answer.get("ContentType", "application/json"), parts(self._who, answer["Body"], ends_at))


def chunks(who: str, stream: Any, writer: ChunkWriter, ends_at: float) -> Generator[bytes, None, None]:
    """ConverseStream's events as server-sent events, as they come; `ends_at` on the monotonic clock. Raises RequestError among them."""
    with contextlib.closing(_events(who, stream, ends_at)) as events:
        for event in events:
            ((name, contents),) = event.items()
            chunk = writer.take(name, contents)
            if chunk is not None:
                yield f"data: {chunk}\n\n".encode()
    if not writer.is_finished:
        raise TierFailure(f"{who} ended its stream without saying why", reason="broken")
    yield b"data: [DONE]\n\n"


def parts(who: str, stream: Any, ends_at: float) -> Generator[bytes, None, None]:
    """The bytes of an endpoint's answer, as they come. Raises RequestError among them."""
    with contextlib.closing(_events(who, stream, ends_at)) as events:
        for event in events:
            yield event["PayloadPart"]["Bytes"]


def _events(who: str, stream: Any, ends_at: float) -> Generator[dict[str, Any], None, None]:
    """Closes `stream` at its end, also where nobody wants the rest."""
    try:
        for event in stream:
            if time.monotonic() > ends_at:
                raise TierFailure(f"{who} did not finish in the function's time", reason="timeout")
            yield event
    except (exceptions.ClientError, exceptions.BotoCoreError) as error:
        raise refusal(who, error) from error
    finally:
        stream.close()


def refusal(who: str, error: Exception) -> RequestError:
    """What AWS or the way to it said, as what the caller is told. Errors inside a stream have their code with a small first letter."""
    if not isinstance(error, exceptions.ClientError):
        reason: Reason = "timeout" if isinstance(error, exceptions.ReadTimeoutError) else "unreachable"
        return TierFailure(f"{who}: {' '.join(str(error).split())}", reason=reason)
    details = error.response.get("Error", {})
    code, message = details.get("Code", ""), details.get("Message") or "no more is told"
    told = f"{who} answers {code}: {' '.join(message.split())}"
    if code == _CONTAINERS and (refused := _CONTAINERS_REFUSALS.get(error.response.get("OriginalStatusCode", 0))) is not None:
        return refused(told)
    if code.lower() in _THROTTLED:
        return Overloaded(told, headers={"Retry-After": "1"})
    if code.lower() in _NOT_READY:
        return NotReady(told)
    return InvalidRequest(told) if code.lower() in _CALLERS else TierFailure(told, reason="failed")


def _whole(body: bytes) -> Generator[bytes, None, None]:
    yield body


def _client(service: str, region: str, timeout_s: float) -> Any:
    config = botocore.config.Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    return boto3.session.Session(region_name=region).client(service, config=config)
