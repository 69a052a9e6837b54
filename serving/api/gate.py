"""What may enter: a request with a valid API key (where keys are set) to a server that is ready. `/ping` is always open."""

import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.errors import error_response
from serving.api.lifecycle import Lifecycle, State
from serving.engine.work import current_scope
from serving.errors import NotReady, RequestError, Unauthorized

_OPEN_PATH = "/ping"
_ANSWERED_WHILE_LOADING = frozenset({"/ping", "/health", "/metrics", "/openapi.json"})
_RETRY_AFTER_S = {State.STARTING: "5", State.STALLED: "10", State.DRAINING: "1"}


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, api_keys: Sequence[str]) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._api_keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        await (self._app if error is None else error_response(error))(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        path = scope["path"]
        if self._api_keys and path != _OPEN_PATH:
            key = self._key_of(Headers(scope=scope))
            if key is None:
                return Unauthorized("no valid API key: send one as `Authorization: Bearer KEY`", headers={"WWW-Authenticate": "Bearer"})
            if (limits := current_scope.get()) is not None:
                limits.caller = f"key{key}"
        if self._lifecycle.is_ready or path in _ANSWERED_WHILE_LOADING:
            return None
        state = self._lifecycle.snapshot()
        detail = f" ({state['phase']})" if state["phase"] != state["status"] else ""
        retry_after = _RETRY_AFTER_S.get(self._lifecycle.state)
        return NotReady(f"the server is {state['status']}{detail}", headers={"Retry-After": retry_after} if retry_after else None)

    def _key_of(self, headers: Headers) -> int | None:
        """The number of the key that the request carries, the first is 1; None if it carries none of them."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Each key is compared, and in constant time, so that neither content nor position can be measured.
        matches = [secrets.compare_digest(given.encode(), key) for key in self._api_keys]
        return matches.index(True) + 1 if scheme.lower() == "bearer" and any(matches) else None
