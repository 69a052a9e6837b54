"""`GET /ping`: may SageMaker send requests here? Answered from the lifecycle alone, never by asking the engine."""

from fastapi import Request
from fastapi.responses import JSONResponse, Response


async def ping(request: Request) -> Response:
    """200 with an empty body when a token can be produced, else 503 with status, phase and reason."""
    lifecycle = request.app.state.lifecycle
    if lifecycle.is_ready:
        return Response(status_code=200)
    return JSONResponse(lifecycle.snapshot(), status_code=503)
