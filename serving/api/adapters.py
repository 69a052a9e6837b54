"""`/adapters`: LoRA adapters registered and removed while serving, as SageMaker's adapter inference components ask for it.

Requests, texts and headers are those of SageMaker's model-hosting-container-standards; the lists are LMI's.
"""

from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.api.adapter_choice import enabled
from serving.api.schemas import read_json_object
from serving.engine.interface import Adapter
from serving.errors import InvalidRequest, UnknownAdapter
from serving.strict import invalid_request, refuse_unknown_fields

_ALIAS_HEADER = "X-Amzn-SageMaker-Adapter-Alias"
_FLAGS = {"true": True, "false": False}
_PAGE_LENGTH = 100
_MAX_DIGITS = 9


class Registration(BaseModel):
    """The body of `POST /adapters`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1)]
    src: Annotated[str, Field(min_length=1)]
    preload: bool = True
    pin: bool = False


async def register_adapter(request: Request) -> Response:
    """Register an adapter. Doing it again changes nothing but `pin`, so that the platform may retry."""
    adapters = enabled(request.app.state.engine)
    # The standards take query parameters where there is no body.
    body = await read_json_object(request) if (await request.body()).strip() or not request.query_params else _from_query(request)
    refuse_unknown_fields(Registration, body)
    try:
        asked = Registration.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        raise invalid_request(error, body) from error
    await adapters.register(asked.name, asked.src, preload=asked.preload, pin=asked.pin)
    return PlainTextResponse(f"Adapter {_alias(request, asked.name)} registered")


async def remove_adapter(request: Request, name: str) -> Response:
    """Forget an adapter."""
    await enabled(request.app.state.engine).remove(name)
    return PlainTextResponse(f"Adapter {_alias(request, name)} unregistered")


async def list_adapters(request: Request) -> Response:
    """The adapters, `limit` at a time, from the `next_page_token`th."""
    adapters = enabled(request.app.state.engine).list()
    start = _count(request, "next_page_token", 0, at_least=0)
    end = start + _count(request, "limit", _PAGE_LENGTH, at_least=1)
    page: dict[str, Any] = {"adapters": [_shown(adapter) for adapter in adapters[start:end]]}
    if end < len(adapters):
        page["nextPageToken"] = str(end)
    return JSONResponse(page)


async def describe_adapter(request: Request, name: str) -> Response:
    """One adapter."""
    adapters = enabled(request.app.state.engine).list()
    for adapter in adapters:
        if adapter.name == name:
            return JSONResponse(_shown(adapter))
    known = ", ".join(adapter.name for adapter in adapters) or "none"
    raise UnknownAdapter(f"there is no adapter {name!r}; registered: {known}")


def _from_query(request: Request) -> dict[str, Any]:
    query: dict[str, Any] = dict(request.query_params)
    for flag in {"preload", "pin"} & query.keys():
        if query[flag].lower() not in _FLAGS:
            raise InvalidRequest(f"{flag}: expected true or false, got {query[flag]!r}", param=flag)
        query[flag] = _FLAGS[query[flag].lower()]
    return query


def _count(request: Request, name: str, default: int, *, at_least: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) < at_least:
        raise InvalidRequest(f"{name}: expected an integer of {at_least} or more, got {text!r}", param=name)
    return int(text)


def _alias(request: Request, name: str) -> str:
    return request.headers.get(_ALIAS_HEADER) or name


def _shown(adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "src": adapter.src,
        "pin": adapter.is_pinned,
        "loaded": adapter.is_loaded,
        "running": adapter.num_running,
    }
