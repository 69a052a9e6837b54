"""The routes, all of them, and what surrounds them. Outside in: request context, gate, body, queue, router; then
vLLM's own routes for what is left."""

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.adapter_choice import AdapterHeader, with_adapter
from serving.api.adapters import describe_adapter, list_adapters, register_adapter, remove_adapter
from serving.api.admission import Admission, Queue
from serving.api.bidirectional import bidirectional
from serving.api.body_limit import BodyLimit
from serving.api.context import InFlight, RequestContext
from serving.api.custom_code import CustomCode
from serving.api.errors import error_response, on_exception, on_http_exception, on_request_error
from serving.api.execution_parameters import execution_parameters
from serving.api.gate import Gate
from serving.api.invocations import invocations
from serving.api.lifecycle import Lifecycle
from serving.api.memory import MemoryReport, memory, memory_metrics
from serving.api.openapi import documented_by
from serving.api.ping import ping
from serving.api.sessions import Sessions
from serving.engine.interface import Engine
from serving.errors import RequestError, UnknownRoute
from serving.settings import Settings

_ENGINE_PREFIX = "/v1/"
_ENGINE_PATHS = frozenset({"/tokenize", "/detokenize", "/version"})
_WITHHELD_PATHS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""With them vLLM reads adapters from any folder, or from the hub; `/adapters` does not."""


def create_app(
    engine: Engine, settings: Settings, lifecycle: Lifecycle, in_flight: InFlight, custom_code: CustomCode | None = None
) -> FastAPI:
    """Assemble the server around `engine`, which need not have been started yet: until `lifecycle` is ready only probes are answered."""
    queue = Queue(engine, settings.max_queue, settings.max_queue_tokens)
    app = FastAPI(
        title="Tokenport",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestContext, in_flight=in_flight, deadline_s=settings.deadline_s, stream_deadline_s=settings.stream_deadline_s),
            Middleware(Gate, lifecycle=lifecycle, api_keys=settings.api_key),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
            Middleware(Admission, queue=queue),
            Middleware(AdapterHeader),
        ],
        exception_handlers={RequestError: on_request_error, HTTPException: on_http_exception, Exception: on_exception},
    )
    app.state.engine = engine
    app.state.custom_code = custom_code
    app.state.lifecycle = lifecycle
    app.state.in_flight = in_flight
    app.state.queue = queue
    app.state.sessions = Sessions(settings.session_ttl_s)
    app.state.max_body_bytes = settings.max_body_bytes
    app.add_api_route("/ping", ping, methods=["GET"], response_class=Response)
    app.add_api_route("/health", ping, methods=["GET"], response_class=Response)
    app.add_api_route("/invocations", invocations, methods=["POST"], response_class=Response)
    app.add_api_route("/execution-parameters", execution_parameters, methods=["GET"], response_class=Response)
    app.add_api_websocket_route("/invocations-bidirectional-stream", bidirectional)
    app.add_api_route("/adapters", register_adapter, methods=["POST"], response_class=Response)
    app.add_api_route("/adapters", list_adapters, methods=["GET"], response_class=Response)
    app.add_api_route("/adapters/{name}", describe_adapter, methods=["GET"], response_class=Response)
    app.add_api_route("/adapters/{name}", remove_adapter, methods=["DELETE"], response_class=Response)
    app.add_api_route("/memory", memory, methods=["GET"], response_model=MemoryReport)
    app.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    app.router.default = EngineRoutes(engine, app.router.default)
    app.openapi = documented_by(app, engine, is_engines)  # type: ignore[method-assign]
    return app


async def metrics(request: Request) -> Response:
    """Everything that this process counts, vLLM's metrics included, and the memory, for Prometheus."""
    sizes = await memory_metrics(request.app.state.engine, request.app.state.lifecycle)
    return Response(generate_latest(REGISTRY) + sizes, media_type=CONTENT_TYPE_LATEST)


class EngineRoutes:
    """Hands vLLM's inference routes to vLLM. Its other routes (scaling, aborting, administration) are not reachable."""

    def __init__(self, engine: Engine, not_found: ASGIApp) -> None:
        self._engine = engine
        self._not_found = not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "websocket":
            # The router would say 403.
            await error_response(UnknownRoute(f"there is no route WEBSOCKET {path}"))(scope, receive, send)
            return
        if not is_engines(path):
            await self._not_found(scope, receive, send)
            return
        receive = await with_adapter(self._engine, scope, receive)
        await self._engine.openai_app(scope, receive, send)


def is_engines(path: str) -> bool:
    """Whether vLLM answers at `path`."""
    return (path.startswith(_ENGINE_PREFIX) or path in _ENGINE_PATHS) and path.rstrip("/") not in _WITHHELD_PATHS
