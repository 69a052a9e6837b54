"""The server's own OpenAPI document: Tokenport's routes and, once the engine is up, vLLM's with the schemas of their bodies."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from serving.api.text_generation import TextGenerationRequest
from serving.engine.interface import Engine
from serving.errors import EngineDead

_CHAT, _COMPLETION, _TEXT_GENERATION = "ChatCompletionRequest", "CompletionRequest", "TextGenerationRequest"
_REF = "#/components/schemas/{}"
_DESCRIPTION = (
    "An OpenAI chat request (`messages`), an OpenAI completion request (`prompt`), or TGI's form (`inputs`, `parameters`). "
    "With `stream: true` the answer is a stream of server-sent events, or of what `Accept` asks for. "
    "With the content type application/jsonlines: one such object a line, and one result a line."
)


def documented_by(app: FastAPI, engine: Engine, serves: Callable[[str], bool]) -> Callable[[], dict[str, Any]]:
    """What to put in the place of `app.openapi`. `serves` tells which of the engine's paths are reachable."""
    own = app.openapi

    def openapi() -> dict[str, Any]:
        document = own()
        try:
            engines = engine.openapi()
        except EngineDead:
            engines = {}
        paths = {path: item for path, item in engines.get("paths", {}).items() if serves(path)}
        schemas = engines.get("components", {}).get("schemas", {}) | _text_generation_schemas()
        return {
            **document,
            "paths": {**paths, **document["paths"], "/invocations": _invocations(document["paths"]["/invocations"], schemas)},
            "components": {"schemas": {**schemas, **document.get("components", {}).get("schemas", {})}},
        }

    return openapi


def _text_generation_schemas() -> dict[str, Any]:
    schema = TextGenerationRequest.model_json_schema(ref_template=_REF.format("{model}"))
    return {**schema.pop("$defs", {}), _TEXT_GENERATION: schema}


def _invocations(item: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    forms = [name for name in (_CHAT, _COMPLETION, _TEXT_GENERATION) if name in schemas]
    schema = {"description": _DESCRIPTION, "anyOf": [{"$ref": _REF.format(name)} for name in forms]}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {**item, "post": {**item["post"], "requestBody": body}}
