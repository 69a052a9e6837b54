"""Strictness over vLLM's tolerant request models: unknown fields are found, and pydantic's union noise becomes one field and one reason.

A type is walked beside the body: models and typed dictionaries have known keys, unions know the keys of all their members, and anything
free-form (a JSON schema, extra arguments) ends the walk.
"""

import collections.abc
import difflib
import functools
import operator
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import get_type_hints, is_typeddict

from serving.errors import InvalidRequest

_UNIONS = (Union, types.UnionType)
_SEQUENCES = (list, tuple, collections.abc.Iterable, collections.abc.Sequence)
_MAX_SHOWN = 80


def refuse_unknown_fields(model: type[BaseModel], body: Mapping[str, Any], *, aliases: Collection[str] = ()) -> None:
    """Raise InvalidRequest for the first key of `body`, at any depth, that `model` does not know, with the nearest known name.

    A null is an absent field: clients send back what they were sent. `aliases` are names that a
    validator of `model` turns into its fields.
    """
    for path, known in _unknown(model, body, ()):
        name = path[-1]
        if name in aliases:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f" in {_dotted(path[:-1])}" if len(path) > 1 else ""
        raise InvalidRequest(f"unknown field {name!r}{where}{hint}", param=_dotted(path))


def invalid_request(error: ValidationError, body: Mapping[str, Any]) -> InvalidRequest:
    """The one error of `error` that says most, as an InvalidRequest that names the field, the reason and the value's type."""
    candidates = [(_path_in(body, detail["loc"], detail["type"] == "missing"), detail) for detail in error.errors()]
    # In a union each member complains: the deepest complaint is of the member that was meant, a literal's of one that was not.
    path, detail = max(candidates, key=lambda item: (len(item[0]), item[1]["type"] != "literal_error"))
    message = detail["msg"].removeprefix("Value error, ")
    cause = detail.get("ctx", {}).get("error")
    param = getattr(cause, "parameter", None) or _dotted(path) or None
    if isinstance(detail["input"], str | int | float | bool) and detail["type"] != "missing":
        message += f" (got {str(detail['input'])[:_MAX_SHOWN]!r})"
    return InvalidRequest(f"{param}: {message}" if param and param not in message else message, param=param)


def _unknown(expected: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[Any, ...], set[str]]]:
    members = list(_members(expected))
    if isinstance(value, Mapping):
        shapes = [fields for member in members if (fields := _fields(member)) is not None]
        if not shapes or any(_is_free_form(member) for member in members):
            return
        known = {name for fields in shapes for name in fields}
        for name, item in value.items():
            if name not in known and item is not None:
                yield (*path, name), known
            for fields in shapes:
                yield from _unknown(fields.get(name), item, (*path, name))
    elif isinstance(value, list):
        items = [get_args(member)[0] for member in members if get_origin(member) in _SEQUENCES]
        if items:
            union = functools.reduce(operator.or_, items)
            for index, item in enumerate(value):
                yield from _unknown(union, item, (*path, index))


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a union, however nested or annotated, stands for."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in _UNIONS:
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _fields(annotation: Any) -> dict[str, Any] | None:
    """Names and types of a model's or typed dictionary's keys; None for anything else."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        return {key: field.annotation for name, field in fields.items() for key in (name, field.alias) if key}
    return get_type_hints(annotation) if is_typeddict(annotation) else None


def _is_free_form(annotation: Any) -> bool:
    return annotation in (Any, dict, object) or get_origin(annotation) in (dict, collections.abc.Mapping)


def _path_in(body: Any, loc: tuple[str | int, ...], is_missing: bool) -> tuple[str | int, ...]:
    """`loc` without the names of union members: what can be followed in `body`, plus the name that is missing there."""
    path: list[str | int] = []
    for step in loc:
        found = (isinstance(body, Mapping) and step in body) or (isinstance(body, list) and isinstance(step, int) and step < len(body))
        if found:
            body = body[step]
            path.append(step)
    if is_missing and loc:
        path.append(loc[-1])
    return tuple(path)


def _dotted(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
