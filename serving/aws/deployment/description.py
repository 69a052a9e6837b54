"""A deployment as plain data: the resources that are to be there, each after those that it needs, and the calls that see to it.

The dry run, the real run, the CloudFormation template and the IAM policies are all made from it. It knows no network and no account.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TAG = "tokenport:deployment"
UPLOADED_TAG = "tokenport:uploaded"
NUM_HASH_DIGITS = 10
MAX_NAME_LENGTH = 63 - 1 - NUM_HASH_DIGITS
"""SageMaker's 63 characters, less what `versioned` adds."""

Kind = Literal[
    "model",
    "endpoint-config",
    "endpoint",
    "instance-count",
    "inference-component",
    "transform-job",
    "alarm",
    "scalable-target",
    "scaling-policy",
    "role",
    "role-policy",
    "function",
    "function-code",
    "function-url",
]


@dataclass(frozen=True)
class Call:
    """One request to AWS, in the API's own names: `Call("sagemaker", "DescribeModel", {"ModelName": "chat"})`."""

    service: str
    operation: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Lookup:
    """The call that asks for one thing, and the field of its answer that holds it; of a list, which may be empty, the first is it."""

    call: Call
    found_in: str | None = None

    def part(self, answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Of an answer what is about the thing, None for an empty list."""
        part: Any = answer.get(self.found_in, answer) if self.found_in is not None else answer
        if isinstance(part, list):
            return part[0] if part else None
        found: Mapping[str, Any] = part
        return found


@dataclass(frozen=True)
class Reference:
    """A value that AWS chooses: `field` of what is found of the resource `title`."""

    title: str
    field: str


@dataclass(frozen=True)
class Exactly:
    """Of what is expected a part in which nothing more may be found than it says."""

    value: Any


@dataclass(frozen=True)
class Status:
    """Where a resource says how far it is. What is neither ready nor failed is on its way."""

    field: str
    ready: frozenset[str]
    failed: frozenset[str]
    reason_field: str


@dataclass(frozen=True)
class Resource:
    """One thing that is to be there; without `create` it comes with the one before it. `expected` is what the found one must show, or
    else it is changed by `update`; without `update` its name changes with its contents. `before_update` takes away what would be in the
    update's way. `remove` is sent for one that failed, which can only be made anew."""

    kind: Kind
    name: str
    find: Lookup
    create: Call | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    before_update: Call | None = None
    update: Call | None = None
    remove: Call | None = None
    status: Status | None = None

    @property
    def title(self) -> str:
        """What it is called in messages and by references; no two of a deployment have the same."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Deployment:
    """`name` is what the user calls it; all resources carry it as the tag `tokenport:deployment`."""

    name: str
    resources: tuple[Resource, ...]


def tag_list(name: str, **more: str) -> list[dict[str, str]]:
    """The tags of the deployment `name` as most of AWS writes them."""
    return [{"Key": key, "Value": value} for key, value in {TAG: name, **more}.items()]


def versioned(name: str, contents: Mapping[str, Any]) -> str:
    """`name` with a hash of `contents`, so that other contents are another resource beside the first."""
    canonical = json.dumps(contents, sort_keys=True, separators=(",", ":"))
    return f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:NUM_HASH_DIGITS]}"


def is_version_of(name: str, candidate: str) -> bool:
    """Whether `versioned(name, ...)` could have made `candidate`."""
    suffix = candidate.removeprefix(f"{name}-")
    return suffix != candidate and len(suffix) == NUM_HASH_DIGITS and set(suffix) <= set("0123456789abcdef")


def role_name(name: str) -> str:
    """Of the function `name`. Roles are global and their names shared with people, so it says whose it is; IAM takes 64 characters."""
    return f"{name}-tokenport"
