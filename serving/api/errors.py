"""One table: error -> HTTP status and OpenAI error body. Nothing that reaches a client is written anywhere else."""

import logging

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.errors import EngineFailure, MethodNotAllowed, RequestError, UnknownRoute

logger = logging.getLogger("tokenport.api")


def error_response(error: RequestError) -> JSONResponse:
    """The response that tells a client of `error`."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def on_request_error(_request: Request, error: Exception) -> JSONResponse:
    """A request was refused on purpose."""
    assert isinstance(error, RequestError)  # noqa: S101 - registered for that class alone
    return error_response(error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """The router found no route, or not for this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for that class alone
    if error.status_code == MethodNotAllowed.status:
        headers = dict(error.headers or {})
        allowed = headers.get("Allow", "another method")
        return error_response(MethodNotAllowed(f"{request.method} {request.url.path}: use {allowed}", headers=headers))
    return error_response(UnknownRoute(f"there is no route {request.method} {request.url.path}"))


async def on_exception(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours, on a route of its own."""
    return error_response(as_request_error(error, f"{request.method} {request.url.path}"))


def as_request_error(error: Exception, where: str) -> RequestError:
    """`error` itself if it was meant for the client; any other is a fault of ours: logged with its traceback, told without it."""
    if isinstance(error, RequestError):
        return error
    logger.error("unhandled error on %s", where, exc_info=error)
    return EngineFailure("internal error; the server's log has the details under this request's id")
