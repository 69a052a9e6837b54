"""Which adapter answers: the one that SageMaker's header names, or `model` in the body. Both may be there if they say the same.

On our own routes the header is kept beside the request until the body is answered (`choose`). For the engine's routes it is written into
the body, and the adapter is in memory before the engine is asked, so that what is wrong with it gets a status of its own.
"""

import json
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.body_limit import replay
from serving.engine.interface import Adapters, Engine
from serving.errors import InvalidRequest, NotEnabled

ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"

_chosen: ContextVar[str] = ContextVar("chosen_adapter", default="")


def enabled(engine: Engine) -> Adapters:
    """The engine's adapters.

    Raises:
        NotEnabled: it was started without LoRA.
    """
    if engine.adapters is None:
        raise NotEnabled(
            "LoRA adapters are switched off: set TOKENPORT_ENABLE_LORA=true, or SAGEMAKER_MAX_NUMBER_OF_ADAPTERS_IN_MEMORY or "
            "TOKENPORT_MAX_LORAS to how many may be in memory"
        )
    return engine.adapters


def choose(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the adapter of the request's header, if it has one, as its model.

    Raises:
        InvalidRequest: the body names something else.
        NotEnabled: there is a header and no LoRA.
    """
    adapter = _chosen.get()
    if not adapter:
        return body
    enabled(engine)
    parameters = body.get("parameters")
    named = {"model": body.get("model"), "parameters.adapter_id": parameters.get("adapter_id") if isinstance(parameters, Mapping) else None}
    for field, value in named.items():
        if value and value != adapter:
            raise InvalidRequest(f"{field} is {value!r}, and the header {ADAPTER_HEADER} names {adapter!r}: leave one out", param=field)
    return {**body, "model": adapter}


class AdapterHeader:
    """ASGI middleware: keeps the header for `choose`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _chosen.set(Headers(scope=scope).get(ADAPTER_HEADER, "").strip())
        try:
            await self._app(scope, receive, send)
        finally:
            _chosen.reset(token)


async def with_adapter(engine: Engine, scope: Scope, receive: Receive) -> Receive:
    """A request on its way to the engine's own routes: its body with the chosen adapter in it, which is in memory by now.

    Raises:
        InvalidRequest: the header has no JSON object to go into, or contradicts it.
        RequestError: of `Adapters.make_ready`.
    """
    if scope["method"] != "POST" or (engine.adapters is None and not _chosen.get()):
        return receive
    raw = await Request(scope, receive).body()
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if isinstance(body, dict):
        raw = await _ready(engine, body, raw)
        MutableHeaders(scope=scope)["content-length"] = str(len(raw))
    elif _chosen.get():
        raise InvalidRequest(f"the header {ADAPTER_HEADER} needs a JSON object as body")
    return replay([{"type": "http.request", "body": raw, "more_body": False}], receive)


async def _ready(engine: Engine, body: dict[str, Any], raw: bytes) -> bytes:
    chosen = choose(engine, body)
    model = chosen.get("model")
    if isinstance(model, str) and model:
        await enabled(engine).make_ready(model)
    return raw if chosen is body else json.dumps(chosen).encode()
