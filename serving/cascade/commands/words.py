"""The kinds of values that the words of the commands have."""

import argparse
import json
from typing import Any


def quality(word: str) -> float:
    """A share of the last tier's quality: above 0, and 1 at most."""
    value = _number(word)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{word} is not above 0 and at most 1: a share of the last tier's mean quality, such as 0.95")
    return value


def confidence(word: str) -> float:
    """Between 0 and 1."""
    value = _number(word)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{word} is not between 0 and 1: how sure to be of the quality, such as 0.9")
    return value


def count(word: str) -> int:
    """1 or more."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number, 1 or more")
    return int(word)


def seed(word: str) -> int:
    """0 or more."""
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number, 0 or more")
    return int(word)


def seconds(word: str) -> float:
    """Above 0."""
    value = _number(word)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is no number of seconds above 0")
    return value


def json_object(word: str) -> dict[str, Any]:
    """An object as JSON."""
    try:
        value = json.loads(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{word!r} is no object, such as {{"temperature": 0}}')
    return value


def pair(word: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = word.partition("=")
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=VALUE")
    return name, value


def pair_of_json(word: str) -> tuple[str, dict[str, Any]]:
    """NAME=JSON, of an object."""
    name, text = pair(word)
    return name, json_object(text)


def names(word: str) -> tuple[str, ...]:
    """Names with commas between them, and spaces around."""
    return tuple(name.strip() for name in word.split(","))


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no number") from None
