"""A deployment as it would be sent: every call with its parameters, as JSON for people and programs; secrets are hidden. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from serving.aws.deployment.description import Call, Deployment, Reference
from serving.redaction import redact


def shown(deployment: Deployment, before: Iterable[Call] = ()) -> dict[str, Any]:
    """`calls` are those of a first run, after those of `before`; `when_it_differs` those for what is there with other contents."""
    calls = [*before, *(resource.create for resource in deployment.resources if resource.create is not None)]
    changes = [call for resource in deployment.resources for call in (resource.before_update, resource.update) if call is not None]
    return {
        "deployment": deployment.name,
        "calls": [shown_call(call) for call in calls],
        "when_it_differs": [shown_call(call) for call in changes],
    }


def shown_call(call: Call) -> dict[str, Any]:
    """One call."""
    return {"service": call.service, "operation": call.operation, "parameters": redact("", _shown(call.parameters))}


def _shown(value: Any) -> Any:
    if isinstance(value, Reference):
        return f"<{value.field} of {value.title}>"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}>"
    if isinstance(value, Mapping):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
