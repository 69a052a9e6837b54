"""The errors the platform answers with, as botocore reads them: status, `x-amzn-ErrorType`, JSON body.

PlatformError   one refused or failed call
StreamFailure   a failure after the first byte of a stream: an exception event inside it

Statuses and fields are from botocore's model of sagemaker-runtime; texts that SageMaker is known to give are kept word for word.
"""

import json
from typing import Any

from container.conformance.runtime.scope import Scope

CONTAINER_NAME = "primary"
_ORIGINAL_MESSAGE_CHARACTERS = 2048  # botocore's model: Message, max
TIMED_OUT = (
    f"Your invocation timed out while waiting for a response from container {CONTAINER_NAME}. Review the latency metrics for each "
    "container in Amazon CloudWatch, resolve the issue, and try again."
)


class PlatformError(Exception):
    """A call that gets an error instead of an answer. `code` is what botocore shows as `Error.Code`; `None`: the status."""

    def __init__(self, status: int, code: str | None, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.body = body

    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body).encode()

    def headers(self) -> dict[str, str]:
        """The headers that tell the SDK which exception to raise."""
        named = {"x-amzn-ErrorType": self.code} if self.code else {}
        return {"Content-Type": "application/json", **named}


class StreamFailure(Exception):
    """The exception event that ends a stream. `error_code` only with ModelStreamError."""

    def __init__(self, exception_type: str, message: str, error_code: str | None = None) -> None:
        super().__init__(message)
        self.exception_type = exception_type
        self.payload = json.dumps({"Message": message} | ({"ErrorCode": error_code} if error_code else {})).encode()


def missing_token() -> PlatformError:
    """403, seen on the real runtime with an unsigned request."""
    return PlatformError(403, "MissingAuthenticationTokenException", {"message": "Missing Authentication Token"})


def incomplete_signature(why: str) -> PlatformError:
    """400 as AWS's list of common errors has it; the wording is ours."""
    return PlatformError(400, "IncompleteSignatureException", {"message": f"Authorization header is not AWS4-HMAC-SHA256: {why}"})


def wrong_service() -> PlatformError:
    """403, seen on the real runtime when another service's name was signed."""
    return PlatformError(403, "InvalidSignatureException", {"message": "Credential should be scoped to correct service: 'sagemaker'."})


def no_bearer_token() -> PlatformError:
    """401 on the OpenAI path. Status and shape are assumed: AWS does not publish them."""
    return PlatformError(401, "UnauthorizedException", {"message": "The OpenAI path wants 'Authorization: Bearer <token>'"})


def bad_bearer_token(why: str) -> PlatformError:
    """403 on the OpenAI path. Status and shape are assumed: AWS does not publish them."""
    return PlatformError(403, "AccessDeniedException", {"message": f"The bearer token is not valid: {why}"})


def endpoint_not_found(name: str, scope: Scope) -> PlatformError:
    """400 in SageMaker's own words."""
    return validation_error(f"Endpoint {name} of account {scope.account} not found.")


def validation_error(message: str) -> PlatformError:
    """400: the request breaks a rule of the API's model."""
    return PlatformError(400, "ValidationError", {"Message": message})


def body_too_large(limit_bytes: int) -> PlatformError:
    """413 without an error type: botocore then raises a plain ClientError whose code is "413".

    Status, missing type and wording were seen on the real runtime when its limit was 5 MB. Larger bodies have also been seen to end
    in a reset connection there; here the body is always read to its end, so that the answer arrives.
    """
    return PlatformError(413, None, {"message": f"HTTP content length exceeded {limit_bytes} bytes."})


def body_too_slow() -> PlatformError:
    """408: the request's body did not arrive in time. Status and code are assumed."""
    return PlatformError(408, "RequestTimeoutException", {"message": "The request body did not arrive in time."})


def throttled() -> PlatformError:
    """400 with no message at all: that is how SageMaker answers. botocore retries it."""
    return PlatformError(400, "ThrottlingException", {"message": None})


def model_not_ready(why: str) -> PlatformError:
    """429. On SageMaker only serverless and multi-model endpoints answer so; a real-time endpoint cannot be invoked before it is ready."""
    return PlatformError(429, "ModelNotReadyException", {"Message": f"Model is not ready for inference yet: {why}"})


def service_unavailable(why: str) -> PlatformError:
    """503: no container to talk to."""
    return PlatformError(503, "ServiceUnavailable", {"Message": f"The service is unavailable. Try your call again. ({why})"})


def unknown_operation(message: str) -> PlatformError:
    """404: the runtime has no such operation, or this imitation has not."""
    return PlatformError(404, "UnknownOperationException", {"message": message})


def model_error(status: int, message: str | None, endpoint_name: str, scope: Scope) -> PlatformError:
    """424: the container answered 4xx or 5xx, or (status 0) not at all.

    The words are SageMaker's, `message` being the container's body; `None` when the body could not be read whole. It is cut at the
    2048 characters that the API's model allows (that it is cut, not dropped, is assumed).
    """
    kind = "client" if 400 <= status < 500 else "server"
    said = " and could not load the entire response body" if message is None else f' with message "{message}"'
    group = f"/aws/sagemaker/Endpoints/{endpoint_name}"
    place = f"https://{scope.region}.console.aws.amazon.com/cloudwatch/home?region={scope.region}#logEventViewer:group={group}"
    body = {
        "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if kind == "client" else "INTERNAL_FAILURE_FROM_MODEL",
        "LogStreamArn": f"arn:aws:logs:{scope.region}:{scope.account}:log-group:{group}",
        "Message": f"Received {kind} error ({status}) from {CONTAINER_NAME}{said}. "
        f"See {place} in account {scope.account} for more information.",
        "OriginalMessage": (message or "")[:_ORIGINAL_MESSAGE_CHARACTERS],
        "OriginalStatusCode": status,
    }
    return PlatformError(424, "ModelError", body)


def stream_time_exceeded() -> StreamFailure:
    """The stream was still running at its deadline; SageMaker's words."""
    message = f"Your model {CONTAINER_NAME} did not complete sending the inference response in the allotted time."
    return StreamFailure("ModelStreamError", message, "ModelInvocationTimeExceeded")


def stream_broken() -> StreamFailure:
    """The container's connection ended before its answer did; the wording is ours."""
    return StreamFailure("ModelStreamError", f"The connection to your model {CONTAINER_NAME} was reset or closed.", "StreamBroken")


def internal_stream_failure() -> StreamFailure:
    """Any other failure, such as an answer that is not HTTP; the model's own text."""
    message = "The stream processing failed because of an unknown error, exception or failure. Try your request again."
    return StreamFailure("InternalStreamFailure", message)
