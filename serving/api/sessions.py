"""SageMaker's sticky sessions: `NEW_SESSION` makes one, later calls carry its id, `CLOSE` ends it.

A session keeps nothing of what was said. The platform sends its calls to this instance, whose prefix cache still holds how they begin.
Ids are random and live in memory only, for the time that their maker was told; of too many the least recently used goes.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi.responses import JSONResponse

from serving.errors import InvalidRequest, UnknownSession

SESSION_HEADER = "X-Amzn-SageMaker-Session-Id"
NEW_HEADER = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_HEADER = "X-Amzn-SageMaker-Closed-Session-Id"

_NEW = "NEW_SESSION"
_CLOSE = "CLOSE"
_FIELD = "requestType"
_ID_BYTES = 16
_EXPIRY_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""botocore's pattern of the header: `ID; Expires=YYYY-MM-DDThh:mm:ssZ`, the id of letters and digits."""


class Sessions:
    """The sessions that are open. Each lasts `ttl_s` seconds from its creation."""

    def __init__(self, ttl_s: float, capacity: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._capacity = capacity
        self._clock = clock
        # Least recently used first.
        self._expiries: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._expiries)

    def open(self) -> tuple[str, str]:
        """A new session: its id, and when it expires, in UTC."""
        self._forget_expired()
        while len(self._expiries) >= self._capacity:
            self._expiries.popitem(last=False)
        identifier = secrets.token_hex(_ID_BYTES)
        self._expiries[identifier] = self._clock() + self._ttl_s
        return identifier, (datetime.now(UTC) + timedelta(seconds=self._ttl_s)).strftime(_EXPIRY_FORMAT)

    def use(self, identifier: str) -> None:
        """Count a call in the session.

        Raises:
            UnknownSession: it was never opened here, was closed, or has expired.
        """
        expiry = self._expiries.get(identifier)
        if expiry is None or expiry <= self._clock():
            self._expiries.pop(identifier, None)
            raise UnknownSession(
                f"the session named by {SESSION_HEADER} is unknown here, closed or expired: start one with {_NEW}", param=SESSION_HEADER
            )
        self._expiries.move_to_end(identifier)

    def close(self, identifier: str) -> None:
        """End the session. Raises UnknownSession as `use` does."""
        self.use(identifier)
        del self._expiries[identifier]

    def _forget_expired(self) -> None:
        now = self._clock()
        for identifier in [identifier for identifier, expiry in self._expiries.items() if expiry <= now]:
            del self._expiries[identifier]

    def enter(self, given: str | None, body: dict[str, Any]) -> "SessionCall":
        """What a call with the session header `given` asks of sessions. Takes `requestType` out of `body`.

        Raises:
            InvalidRequest: header and `requestType` do not fit together.
            UnknownSession: see `use`.
        """
        asked = body.pop(_FIELD, None)
        if asked not in (None, _NEW, _CLOSE):
            raise InvalidRequest(f"{_FIELD}: expected {_NEW} or {_CLOSE}, got {str(asked)[:80]!r}", param=_FIELD)
        if asked == _NEW and given not in (None, _NEW):
            raise InvalidRequest(f"{_FIELD} {_NEW}: leave {SESSION_HEADER} out or set it to {_NEW}", param=_FIELD)
        if asked == _CLOSE:
            if given in (None, _NEW):
                raise InvalidRequest(f"{_FIELD} {_CLOSE}: name the session in {SESSION_HEADER}", param=SESSION_HEADER)
            if body:
                raise InvalidRequest(f"{_FIELD} {_CLOSE} takes no other field: remove {min(body)!r}", param=min(body))
        action: Literal["new", "close"] | None = "close" if asked == _CLOSE else "new" if _NEW in (asked, given) else None
        identifier = given if given != _NEW else None
        if identifier is not None:
            self.use(identifier)
        return SessionCall(self, identifier, action, is_all=action == "close" or (action == "new" and not body))


@dataclass(frozen=True)
class SessionCall:
    """One call's part in sessions. `identifier`: the session it belongs to. `is_all`: it asks for nothing else."""

    sessions: Sessions
    identifier: str | None
    action: Literal["new", "close"] | None
    is_all: bool

    def conclude(self) -> dict[str, str]:
        """Open or close what was asked for, once the call has succeeded: the headers that say so."""
        if self.action == "new":
            identifier, expires = self.sessions.open()
            return {NEW_HEADER: f"{identifier}; Expires={expires}"}
        if self.action == "close" and self.identifier is not None:
            self.sessions.close(self.identifier)
            return {CLOSED_HEADER: self.identifier}
        return {}

    def response(self) -> JSONResponse:
        """The answer to a call that `is_all`: the same as the headers, for those who cannot see them."""
        headers = self.conclude()
        if CLOSED_HEADER in headers:
            return JSONResponse({"closed_session_id": headers[CLOSED_HEADER]}, headers=headers)
        identifier, _, expires = headers[NEW_HEADER].partition("; Expires=")
        return JSONResponse({"session_id": identifier, "expires": expires}, headers=headers)
