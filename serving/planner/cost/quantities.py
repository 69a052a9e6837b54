"""Quantities as they are written on the command line of `tokenport plan cost`. Every failure names the option, its value and the form."""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from serving.errors import PlanError

_SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# More than anything that is counted here; Python itself refuses thousands of digits.
_MOST_DIGITS = 18
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h)")


def wrong(option: str, value: object, right: str) -> PlanError:
    """The one form of all errors about options."""
    return PlanError(f"{option} {value}: {right}")


def unknown(where: str, name: str, known: Sequence[str]) -> PlanError:
    """A name that is none of those known, with the nearest of them."""
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    return PlanError(f"{where} {name!r} is unknown; {f'the nearest is {near[0]!r}' if near else 'there is none yet'}")


def duration_s(option: str, text: str) -> float:
    """Seconds, not negative, from `400ms`, `2s`, `5m`, `1h`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise wrong(option, text, "write a length of time with its unit, such as 400ms, 2s or 5m")
    return float(found[1]) * _SECONDS_IN[found[2]]


def number(option: str, text: str, *, least: float = 0.0, above: bool = True) -> float:
    """A finite number above `least`, or with `above` False at least that."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (above and value == least):
        raise wrong(option, text, f"write a number {'above' if above else 'of at least'} {least:g}")
    return value


def count(option: str, text: str, *, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`."""
    is_count = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not is_count or int(text) < least or (most is not None and int(text) > most):
        raise wrong(option, text, f"write a whole number {f'of at least {least}' if most is None else f'from {least} to {most}'}")
    return int(text)


def parts(option: str, text: str, form: str, names: Sequence[str]) -> Mapping[str, str]:
    """`ttft=2s,e2e=10s` as a mapping. `form` is how it should look."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name in found:
            raise wrong(option, text, f"write {form}")
        if name not in names:
            raise unknown(option, name, names)
        found[name] = value
    return found
