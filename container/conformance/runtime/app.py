"""The routes of the local runtime, and what surrounds them."""

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from container.conformance.runtime.endpoint import Endpoint
from container.conformance.runtime.errors import PlatformError, unknown_operation
from container.conformance.runtime.observed import Observed
from container.conformance.runtime.options import Options

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_CLIENT_LEFT = 499  # never sent: there is nobody to read it


def create_app(options: Options) -> Observed:
    """The runtime as an ASGI app. Its lifespan asks the container's /ping."""
    endpoint = Endpoint(options)
    root = "/endpoints/{endpoint_name}"
    chat = "/openai/v1/chat/completions"
    return Observed(
        Starlette(
            routes=[
                Route(f"{root}/invocations", endpoint.invoke, methods=["POST"]),
                Route(f"{root}/invocations-response-stream", endpoint.invoke_with_response_stream, methods=["POST"]),
                Route(f"{root}{chat}", endpoint.chat, methods=["POST"]),
                Route(f"{root}/inference-components/{{component}}{chat}", endpoint.chat, methods=["POST"]),
                Route("/{path:path}", _unknown_operation, methods=_METHODS),
            ],
            exception_handlers={PlatformError: _refused, ClientDisconnect: _left},
            lifespan=endpoint.lifespan,
        )
    )


def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, PlatformError):
        raise error
    return Response(error.content(), error.status, error.headers())


def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


async def _unknown_operation(request: Request) -> Response:
    raise unknown_operation(
        f"The local runtime has no {request.method} {request.url.path}: it offers InvokeEndpoint, InvokeEndpointWithResponseStream and "
        "the OpenAI path for chat completions, not InvokeEndpointAsync nor the bidirectional stream"
    )
