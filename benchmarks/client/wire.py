"""What goes between the client's processes, as JSON lines: plans and targets one way, records and the client's own load the other."""

from typing import Any

import msgspec

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan, Prompt, Request
from benchmarks.measuring.record import ClientLoad, Record


def to_line(message: dict[str, Any]) -> bytes:
    """One message; dataclasses in it become objects, tuples become lists."""
    return msgspec.json.encode(message) + b"\n"


def from_line(line: bytes) -> dict[str, Any]:
    """The inverse of `to_line`, down to plain data."""
    return msgspec.json.decode(line, type=dict[str, Any])


def plan_from(fields: dict[str, Any]) -> Plan:
    """A plan out of plain data."""
    requests = tuple(Request(**{**request, "prompt": _prompt(request["prompt"])}) for request in fields["requests"])
    return Plan(**{**fields, "requests": requests})


def spec_from(fields: dict[str, Any]) -> TargetSpec:
    """A target out of plain data."""
    return TargetSpec(**fields)


def capabilities_from(fields: dict[str, Any]) -> Capabilities:
    """What a target takes, out of plain data."""
    return Capabilities(**{**fields, "notes": tuple(fields["notes"])})


def record_from(fields: dict[str, Any]) -> Record:
    """A record out of plain data."""
    return Record(**fields)


def client_load_from(fields: dict[str, Any]) -> ClientLoad:
    """A process's own load out of plain data."""
    return ClientLoad(**{**fields, "loop_lag_s": tuple(fields["loop_lag_s"])})


def _prompt(prompt: str | list[Any]) -> Prompt:
    return prompt if isinstance(prompt, str) else tuple(prompt)
