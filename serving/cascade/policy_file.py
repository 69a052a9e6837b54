"""The policy as a JSON file: written by `tokenport cascade fit`, read strictly by the server and by `tokenport cascade eval`."""

import dataclasses
import difflib
import json
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from serving.cascade import request_features, token_signals
from serving.cascade.policy import FittedOn, Policy, Rule, Stage
from serving.errors import CascadeError

SCHEMA_VERSION = 1
VALID_FOR = ("model", "chat_template", "sampling")
"""What a policy can be held to of each tier: `valid_for` has TIER.model and so on."""
_ADAPTER = TypeAdapter(Policy)
_AT_DEPTH = {1: Policy, 2: FittedOn, 3: Stage, 4: Rule}
"""Whose field it is that lies so deep in the file."""


def write_policy(policy: Policy, path: Path) -> None:
    """Write the file, readable by people.

    Raises:
        CascadeError: it cannot be written.
    """
    try:
        path.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(policy)}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CascadeError(f"cannot write {path}: {error.strerror}") from error


def read_policy(path: Path) -> Policy:
    """Read and check a file.

    Raises:
        CascadeError: it cannot be read, is of another version, has unknown or wrong fields, or contradicts itself.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CascadeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CascadeError(f"{path} is not JSON: {error}") from error
    version = content.pop("schema_version", None) if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise CascadeError(f"{path}: schema_version is {version!r}; this version reads {SCHEMA_VERSION}; fit the policy again")
    try:
        policy = _ADAPTER.validate_json(json.dumps(content))
    except ValidationError as error:
        raise CascadeError(f"{path}: {_first_fault(error)}") from error
    fault = _contradiction(policy)
    if fault:
        raise CascadeError(f"{path}: {fault}")
    return policy


def unknown_signals(policy: Policy) -> list[str]:
    """Signals that the policy asks for and the server does not compute: with any, it can be evaluated, not served."""
    known = {False: set(request_features.NAMES), True: {*request_features.NAMES, *token_signals.NAMES}}
    rules = [(rule, rule is stage.after) for stage in policy.stages for rule in (stage.before, stage.after) if rule is not None]
    return sorted({name for rule, is_after in rules for name in rule.weights if name not in known[is_after]})


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        fields = [field.name for field in dataclasses.fields(_AT_DEPTH[len(fault["loc"])])]
        near = difflib.get_close_matches(str(fault["loc"][-1]), fields, n=1)
        return f"unknown field {where}" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _contradiction(policy: Policy) -> str | None:
    tiers = [*(stage.tier for stage in policy.stages), policy.last_tier]
    if len(set(tiers)) != len(tiers):
        return f"the tiers {', '.join(tiers)} are not all different"
    for stage in policy.stages:
        if stage.before is None and stage.after is None:
            return f"the stage of {stage.tier!r} has neither `before` nor `after`"
        if (stage.hold_tokens > 0) != (stage.after is not None) or stage.hold_tokens < 0:
            return f"the stage of {stage.tier!r}: hold_tokens is {stage.hold_tokens}; it goes with `after`: 1 or more with it, 0 without"
        for name, rule in (("before", stage.before), ("after", stage.after)):
            if rule is not None and not _is_line(rule):
                return f"the {name} rule of {stage.tier!r}: expected as many levels as steps, at least one, both rising"
    for name in policy.valid_for:
        tier, _, fact = name.rpartition(".")
        if tier not in tiers or fact not in VALID_FOR:
            return f"valid_for has {name!r}; expected TIER.{', TIER.'.join(VALID_FOR)} of the tiers {', '.join(tiers)}"
    return None


def _is_line(rule: Rule) -> bool:
    rises = all(left < right for left, right in pairwise(rule.steps)) and all(low <= high for low, high in pairwise(rule.levels))
    return len(rule.steps) == len(rule.levels) > 0 and rises
