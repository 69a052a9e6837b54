"""From what a person wrote to a value of the right type, or to the sentence that says what was expected.

A raw value is text (from an environment variable or the command line) or what YAML made of it. JSON objects only vLLM can judge fully: here
they must parse, there their fields are checked.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from serving.engine_arguments import Argument

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_STRING_IN_JSON = re.compile(r'("(?:[^"\\]|\\.)*")')
_SIZE_IN_JSON = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b")
_EXPECTED = {
    "bool": "true or false",
    "switch": "true or false",
    "int": "an integer",
    "size": "an integer, or one with a suffix such as 8k (8000) or 8K (8192)",
    "int_or_auto": "an integer, or auto",
    "size_or_auto": "an integer, one with a suffix such as 8k (8000) or 8K (8192), or auto",
    "float": "a number",
    "str": "a string",
    "folded": "a string",
    "int_or_str": "an integer or a string",
    "object": "a JSON object",
    "array": "a JSON array",
    "str_or_object": "a string or a JSON object",
    "str_or_true": "a string, or true for the stored one",
}


class WrongValueError(ValueError):
    """The value does not fit. The text says more than `expected` does, or is empty."""


def expected(argument: Argument) -> str:
    """What `argument` takes, as the end of "expected ..."."""
    text = "one of " + ", ".join(map(str, argument.choices)) if argument.choices else _EXPECTED[argument.kind]
    if argument.many == "words":
        return f"one or more, separated by spaces or as a JSON array, each {text}"
    if argument.many == "commas":
        return f"one or more, separated by commas, each {text}"
    return text


def convert(argument: Argument, raw: Any) -> Any:
    """The typed value of `raw`: bool, int, float, str, dict, list, or None where the argument may be None.

    Raises:
        WrongValueError: it does not fit.
    """
    if argument.is_optional and not argument.many and raw in (None, "", "None"):
        return None
    if raw is None:
        raise WrongValueError("leave the key out instead of null")
    if raw == "" and (argument.many or argument.kind not in ("str", "str_or_object")):
        raise WrongValueError("to leave it at its default, unset it instead of leaving it empty")
    if not argument.many:
        return _one(argument, raw)
    items = [_one(argument, item) for item in _items(argument, raw)]
    if not items:
        raise WrongValueError("to leave it at its default, unset it instead of leaving it empty")
    if dashed := [item for item in items if str(item).startswith("-")]:
        raise WrongValueError(f"{dashed[0]!r} begins like a flag")
    return items


def _items(argument: Argument, raw: Any) -> list[Any]:
    if isinstance(raw, list):
        return raw
    if not isinstance(raw, str):
        return [raw]
    if argument.many == "commas":
        return [part.strip() for part in raw.split(",")]
    text = raw.strip()
    if text.startswith("["):
        items: list[Any] = _array(text)
        return items
    return [text] if text.startswith("{") else text.split()


def _one(argument: Argument, raw: Any) -> Any:
    if argument.kind == "str" and isinstance(raw, int) and not isinstance(raw, bool) and isinstance(argument.default, int):
        raw = str(raw)
    value = _PARSERS[argument.kind](raw)
    if argument.choices and value not in argument.choices:
        raise WrongValueError
    return value


def _bool(raw: Any) -> bool:
    text = str(raw).strip().lower()
    if text in TRUE + FALSE:
        return text in TRUE
    raise WrongValueError


def _int(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"[+-]?\d+", raw.strip()):
        return int(raw)
    raise WrongValueError


def _size(raw: Any) -> int:
    match = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if not match:
        return _int(raw)
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 1000**power)
    if "." in number:
        raise WrongValueError(f"{suffix} is a binary suffix and takes no decimals; {suffix.lower()} does")
    return int(number) * int(1024**power)


def _int_or_auto(raw: Any) -> int | str:
    return "auto" if isinstance(raw, str) and raw.strip().lower() == "auto" else _int(raw)


def _size_or_auto(raw: Any) -> int:
    return -1 if isinstance(raw, str) and raw.strip().lower() == "auto" else _size(raw)


def _float(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise WrongValueError
    try:
        return float(raw)
    except ValueError:
        raise WrongValueError from None


def _str(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    raise WrongValueError("write it in quotes" if isinstance(raw, int | float) else "")


def _folded(raw: Any) -> str:
    return _str(raw).lower().replace("-", "_")


def _int_or_str(raw: Any) -> int | str:
    if raw == "":
        raise WrongValueError("an item is empty")
    return int(raw) if type(raw) is int or (isinstance(raw, str) and raw.isdecimal()) else _str(raw)


def _object(raw: Any) -> dict[str, Any]:
    value = _json(_expand_sizes(raw)) if isinstance(raw, str) else raw
    if isinstance(value, dict):
        return value
    raise WrongValueError


def _array(raw: Any) -> list[Any]:
    value = _json(raw) if isinstance(raw, str) else raw
    if isinstance(value, list):
        return value
    raise WrongValueError


def _str_or_object(raw: Any) -> str | dict[str, Any]:
    return _object(raw) if isinstance(raw, dict) or (isinstance(raw, str) and raw.strip().startswith("{")) else _str(raw)


def _str_or_true(raw: Any) -> str | bool:
    if isinstance(raw, bool) or (isinstance(raw, str) and raw.strip().lower() in ("true", "false")):
        return _bool(raw)
    return _str(raw)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise WrongValueError(f"it does not parse: {error}") from None


def _expand_sizes(text: str) -> str:
    """vLLM lets a number in its JSON be written `80m`; only outside of strings."""
    parts = _STRING_IN_JSON.split(text)
    parts[::2] = [_SIZE_IN_JSON.sub(lambda match: str(_size(match[0])), part) for part in parts[::2]]
    return "".join(parts)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "switch": _bool,
    "int": _int,
    "size": _size,
    "int_or_auto": _int_or_auto,
    "size_or_auto": _size_or_auto,
    "float": _float,
    "str": _str,
    "folded": _folded,
    "int_or_str": _int_or_str,
    "object": _object,
    "array": _array,
    "str_or_object": _str_or_object,
    "str_or_true": _str_or_true,
}
