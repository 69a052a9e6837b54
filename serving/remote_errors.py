"""What another server answered instead of an answer, or did to the connection, as one of our errors.

What the caller can put right is told the caller. Everything else is a TierFailure, so that another model may be asked.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from serving.errors import BodyTooLarge, InvalidRequest, Reason, RequestError, TierFailure

_REASONS: dict[int, Reason] = {
    401: "refused",
    403: "refused",
    404: "refused",
    408: "timeout",
    429: "throttled",
    503: "not_ready",
    504: "timeout",
}
_CALLERS = (400, 422)
_TOO_LARGE = 413
_MAX_SHOWN = 500


def status_error(who: str, status: int, body: bytes, headers: Mapping[str, str]) -> RequestError:
    """Of an HTTP answer that is not 2xx, from a server with OpenAI's error bodies, or none. `who` begins the sentence."""
    message, param = _told(body)
    if status in _CALLERS:
        return InvalidRequest(f"{who} refused the request: {message}", param=param)
    if status == _TOO_LARGE:
        return BodyTooLarge(f"{who} refused the request: {message}")
    seconds = headers.get("Retry-After", "")
    return TierFailure(
        f"{who} answered {status}: {message}",
        reason=_REASONS.get(status, "failed"),
        retry_after_s=float(seconds) if seconds.isdecimal() else None,
    )


def connection_error(who: str, error: aiohttp.ClientError) -> TierFailure:
    """Of what aiohttp raises while it connects, sends or reads."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return TierFailure(f"{who} cannot be reached: {told}", reason="unreachable")
    return TierFailure(f"{who} broke off the connection: {told}", reason="broken")


def deadline_error(who: str) -> TierFailure:
    """The deadline has passed."""
    return TierFailure(f"{who} did not finish its answer in time", reason="timeout")


def _told(body: bytes) -> tuple[str, str | None]:
    """The message, on one line, and the field it is about."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return _line(body.decode(errors="replace")), None
    error = answer.get("error")
    fields = error if isinstance(error, dict) else answer
    message, param = fields.get("message") or fields.get("detail") or error, fields.get("param")
    return _line(message if isinstance(message, str) else json.dumps(answer)), param if isinstance(param, str) else None


def _line(text: str) -> str:
    return " ".join(text.split())[:_MAX_SHOWN] or "it said nothing more"
