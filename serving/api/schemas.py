"""The body of `/invocations`: read as a JSON object, and told apart by the key that is there:

`messages` -> OpenAI chat, `prompt` -> OpenAI completion, `inputs` -> the text-generation form of TGI and LMI.
Fields of the OpenAI forms are checked by the engine, which knows all of vLLM's own.
"""

import json
from typing import Any

from fastapi import Request

from serving.errors import InvalidRequest, UnsupportedMediaType

_FORMS = ("messages", "prompt", "inputs")
_JSON_TYPES = ("application/json", "application/octet-stream", "")
"""boto3 sends octet-stream when the caller names no content type."""


def content_type_of(request: Request) -> str:
    """The content type in lower case without its parameters, empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json_object(request: Request) -> dict[str, Any]:
    """The request's body.

    Raises:
        UnsupportedMediaType: the content type is not JSON.
        InvalidRequest: empty, not UTF-8, not JSON (with the position) or not an object.
    """
    content_type = content_type_of(request)
    if content_type not in _JSON_TYPES and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"content type {content_type!r} is not supported: send application/json")
    return parse_json_object(await request.body())


def parse_json_object(raw: bytes | str, what: str = "the body") -> dict[str, Any]:
    """The JSON object that `raw` is the text of; `what` it is called in errors.

    Raises:
        InvalidRequest: empty, not UTF-8, not JSON (with the position) or not an object.
    """
    if not raw.strip():
        raise InvalidRequest(f"{what} is empty: send a JSON object with one of {_listed()}")
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})"
        ) from error
    except RecursionError as error:
        raise InvalidRequest(f"{what} is nested too deeply") from error
    except ValueError as error:  # Python's limit for the digits of an integer
        raise InvalidRequest(f"{what} is not JSON that can be read: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"{what} is a JSON {_json_type(body)}: send an object with one of {_listed()}")
    return body


def form_of(body: dict[str, Any]) -> str:
    """Which of the three forms `body` has."""
    present = [form for form in _FORMS if form in body]
    if len(present) != 1:
        found = f"it has {' and '.join(map(repr, present))}" if present else f"it has {sorted(body) or 'no fields'}"
        raise InvalidRequest(f"the body must have exactly one of {_listed()}: {found}", param=present[0] if present else None)
    return present[0]


def _listed() -> str:
    return ", ".join(repr(form) for form in _FORMS)


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _refuse_constant(name: str) -> None:
    raise InvalidRequest(f"the body is not JSON: {name} is no JSON number")
