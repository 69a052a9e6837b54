"""The routes, all of them, and what surrounds them. Outside in: request context, gate, router; then vLLM's own routes for what is left."""

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.context import InFlight, RequestContext
from serving.api.errors import on_exception, on_http_exception, on_request_error
from serving.api.gate import Gate
from serving.api.invocations import invocations
from serving.api.lifecycle import Lifecycle
from serving.api.ping import ping
from serving.engine.interface import Engine
from serving.errors import RequestError
from serving.settings import Settings

_ENGINE_PREFIX = "/v1/"
_ENGINE_PATHS = frozenset({"/tokenize", "/detokenize", "/version"})


def create_app(engine: Engine, settings: Settings, lifecycle: Lifecycle, in_flight: InFlight) -> FastAPI:
    """Assemble the server around `engine`, which need not have been started yet: until `lifecycle` is ready only probes are answered."""
    app = FastAPI(
        title="Tokenport",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestContext, in_flight=in_flight),
            Middleware(Gate, lifecycle=lifecycle, api_keys=settings.api_key),
        ],
        exception_handlers={RequestError: on_request_error, HTTPException: on_http_exception, Exception: on_exception},
    )
    app.state.engine = engine
    app.state.lifecycle = lifecycle
    app.add_api_route("/ping", ping, methods=["GET"], response_class=Response)
    app.add_api_route("/health", ping, methods=["GET"], response_class=Response)
    app.add_api_route("/invocations", invocations, methods=["POST"], response_class=Response, openapi_extra=_INVOCATION_BODY)
    app.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    app.router.default = EngineRoutes(engine, app.router.default)
    return app


async def metrics() -> Response:
    """Everything that this process counts, vLLM's metrics included, for Prometheus."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


class EngineRoutes:
    """Hands vLLM's inference routes to vLLM. Its other routes (scaling, aborting, administration) are not reachable."""

    def __init__(self, engine: Engine, not_found: ASGIApp) -> None:
        self._engine = engine
        self._not_found = not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_engines = scope["type"] == "http" and (path.startswith(_ENGINE_PREFIX) or path in _ENGINE_PATHS)
        await (self._engine.openai_app if is_engines else self._not_found)(scope, receive, send)


_INVOCATION_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "An OpenAI chat request (`messages`), an OpenAI completion request (`prompt`), "
                    "or TGI's form (`inputs`, `parameters`). With `stream: true` the answer is a stream of server-sent events, "
                    "or of JSON lines with `Accept: application/jsonlines`.",
                    "properties": {
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "prompt": {"type": "string"},
                        "inputs": {"type": "string"},
                        "parameters": {"type": "object"},
                        "model": {"type": "string", "nullable": True},
                        "stream": {"type": "boolean"},
                    },
                }
            }
        },
    }
}
