"""Numbers as people write them: durations, counts, rates. Every failure names the option, its value and the right form."""

import math
import re

from serving.errors import BenchmarkError

_SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h)?")


def wrong(option: str, value: object, right: str) -> BenchmarkError:
    """The one form of all errors about options: `--rate 0: must be ...`."""
    return BenchmarkError(f"{option} {value}: {right}")


def duration_s(option: str, text: str) -> float:
    """Seconds from `60s`, `500ms`, `1.5m`, `2h`; a number alone is seconds."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS_IN[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise wrong(option, text, "must be a length of time above zero, such as 60s, 500ms, 1.5m or 2h")
    return seconds


def positive(option: str, text: str) -> float:
    """A finite number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise wrong(option, text, "must be a number above zero")
    return number


def count(option: str, text: str) -> int:
    """A whole number of at least one."""
    if not text.strip().isascii() or not text.strip().isdigit() or int(text) < 1:
        raise wrong(option, text, "must be a whole number of at least 1")
    return int(text)
