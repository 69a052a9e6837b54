"""The errors of SageMaker Runtime and Bedrock Runtime as ours: by code, in any case of letters, else by HTTP status.

Codes are botocore's models of both services and AWS's common errors
(https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html). In streams Bedrock writes them with a small first letter.
"""

import json
from collections.abc import Mapping
from typing import Any

from serving.errors import InvalidRequest, Reason, RequestError, TierFailure
from serving.remote_errors import status_error

_REASONS: dict[str, Reason] = {
    "throttlingexception": "throttled",
    "throttling": "throttled",
    "toomanyrequestsexception": "throttled",
    "servicequotaexceededexception": "throttled",
    "modelnotreadyexception": "not_ready",
    "serviceunavailable": "not_ready",
    "serviceunavailableexception": "not_ready",
    "modeltimeoutexception": "timeout",
    "modelinvocationtimeexceeded": "timeout",
    "requesttimeoutexception": "timeout",
    "streambroken": "broken",
    "modelerrorexception": "failed",
    "modelstreamerrorexception": "failed",
    "internalfailure": "failed",
    "internalserverexception": "failed",
    "internaldependencyexception": "failed",
    "internalstreamfailure": "failed",
    "accessdeniedexception": "refused",
    "expiredtokenexception": "refused",
    "expiredtoken": "refused",
    "incompletesignatureexception": "refused",
    "invalidsignatureexception": "refused",
    "missingauthenticationtokenexception": "refused",
    "resourcenotfoundexception": "refused",
    "unrecognizedclientexception": "refused",
    # Of SageMaker: endpoint, component or variant is not there. The caller's own body is not looked at.
    "validationerror": "refused",
}
_CALLERS = "validationexception"
_ABOUT_THE_MODEL = "model id"
"""In Bedrock's "The provided model identifier is invalid" and "Invocation of model ID ... with on-demand throughput isn't supported": a
mistake of the configuration, though it has the code of the caller's."""
_MODEL_ERROR = "modelerror"
_TIMED_OUT = "timed out"


def service_error(who: str, status: int, body: bytes, headers: Mapping[str, str]) -> RequestError:
    """Of an answer that is not 2xx."""
    fields = _fields(body)
    code = (headers.get("x-amzn-ErrorType") or fields.get("__type") or fields.get("code") or "").partition(":")[0].rpartition("#")[2]
    if code.lower() == _MODEL_ERROR:
        return _container_error(who, fields)
    if code:
        return coded_error(who, code, _message(fields))
    return status_error(who, status, body, headers)


def coded_error(who: str, code: str, message: str) -> RequestError:
    """Of an error with a code: an answer's, or one inside a stream."""
    told = f"{code}: {message}" if message else code
    if code.lower() == _CALLERS:
        if _ABOUT_THE_MODEL in message.lower():
            return TierFailure(f"{who} answered {told}", reason="refused")
        return InvalidRequest(f"{who} refused the request: {told}")
    return TierFailure(f"{who} answered {told}", reason=_REASONS.get(code.lower(), "failed"))


def stream_error(who: str, exception_type: str, payload: bytes) -> RequestError:
    """Of the exception event that ends a stream. SageMaker's ModelStreamError has its cause in `ErrorCode`."""
    fields = _fields(payload)
    return coded_error(who, fields.get("ErrorCode") or exception_type, _message(fields))


def _container_error(who: str, fields: Mapping[str, Any]) -> RequestError:
    """SageMaker's 424. What the container answered is inside; status 0: it answered nothing."""
    status, message = fields.get("OriginalStatusCode") or 0, fields.get("OriginalMessage") or ""
    if status:
        return status_error(f"{who}'s container", status, message.encode(), {})
    return TierFailure(f"{who}'s container did not answer: {message}", reason="timeout" if _TIMED_OUT in message else "broken")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    return fields if isinstance(fields, dict) else {}


def _message(fields: Mapping[str, Any]) -> str:
    return " ".join(str(fields.get("message") or fields.get("Message") or "").split())
