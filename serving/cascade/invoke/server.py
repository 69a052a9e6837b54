"""A server that speaks OpenAI's protocol as the target of `tokenport invoke`: its routes, and the name of its first model."""

import json
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp

from serving.cascade.openai_model import OpenAIModel
from serving.errors import NoAnswer
from serving.remote_errors import connection_error, status_error

_VERSION = "/v1"
_TIMEOUT_S = 10.0


async def server_model(url: str, model: str | None, api_key: str | None, *, route: Literal["chat", "invocations"]) -> OpenAIModel:
    """The model at `url`, which may end where the version's path does or before it. Without `model` it is the first that is listed.

    Raises:
        RequestError: the server does not answer, or refuses the key.
        NoAnswer: it lists no model.
    """
    root = url.removesuffix(_VERSION)
    versioned = url if urlsplit(url).path else f"{root}{_VERSION}"
    name = model or await _first_model(versioned, api_key)
    if route == "invocations":
        return OpenAIModel(url, root, name, api_key=api_key, paths={"chat": "invocations"})
    return OpenAIModel(url, versioned, name, api_key=api_key)


async def _first_model(url: str, api_key: str | None) -> str:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), headers=headers) as http,
            http.get(f"{url}/models", allow_redirects=False) as response,
        ):
            body = await response.read()
            if response.status != 200:
                raise status_error(f"{url}/models", response.status, body, response.headers)
    except aiohttp.ClientError as error:
        raise connection_error(url, error) from error
    except TimeoutError as error:
        raise NoAnswer(f"{url}/models did not answer within {_TIMEOUT_S:.0f} s") from error
    return _first_name(url, body)


def _first_name(url: str, body: bytes) -> str:
    try:
        name: Any = json.loads(body)["data"][0]["id"]
    except (ValueError, LookupError, TypeError) as error:
        raise NoAnswer(f"{url}/models lists no model; name it with --model") from error
    return str(name)
