"""The published JSON Schema of the result document, and the check of a document against it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from serving.errors import BenchmarkError

_FULLY_CHECKED = 5
"""Requests that go through the whole schema; the times of all others are looked at."""
_TIMES = {"scheduled_s", "sent_s", "arrivals_s", "ended_s", "run"}

_FILE = Path(__file__).with_name("schema.json")


def schema_text() -> str:
    """The schema (2020-12) as it is published."""
    return _FILE.read_text(encoding="utf-8")


def check(document: Mapping[str, Any]) -> None:
    """Hold a document against the schema.

    Raises:
        BenchmarkError: it does not fit; names the first field at fault and what is wrong with it.
    """
    requests = document.get("requests")
    if isinstance(requests, list) and len(requests) > _FULLY_CHECKED:
        for index, request in enumerate(requests):
            if not _is_plausible(request):
                raise BenchmarkError(f"requests[{index}]: no request with its raw times")
        document = {**document, "requests": requests[:_FULLY_CHECKED]}
    fault = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    if fault is not None:
        where = "" if fault.json_path == "$" else f"{fault.json_path.removeprefix('$.')}: "
        raise BenchmarkError(f"{where}{_first_line(fault.message)}")


def _is_plausible(request: Any) -> bool:
    """What the schema asks of a request's times, at a hundredth of its price: a long run has millions of them."""
    if not isinstance(request, dict) or not request.keys() >= _TIMES or not isinstance(request["arrivals_s"], list):
        return False
    times = [request["scheduled_s"], *(time for time in (request["sent_s"], request["ended_s"]) if time is not None)]
    return {type(time) for time in (*times, *request["arrivals_s"])} <= {int, float}


@cache
def _validator() -> Any:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _first_line(message: str) -> str:
    line = message.partition("\n")[0]
    return line if len(line) <= 200 else f"{line[:90]} ... {line[-90:]}"
