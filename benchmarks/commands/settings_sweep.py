"""Settings of the server to go through: `dtype=bfloat16 quantization=none,int8 max_model_len=1024,2048` is every combination of them."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import BenchmarkError

Settings = Mapping[str, str]
LEFT_OUT = "none"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NOT_SWEPT = ("model", "port", "host", "api_key")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_EXAMPLE = "like max_model_len=1024,2048 quantization=none,int8"


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, both included, of one setting."""

    name: str
    low: int
    high: int


def parse_sweep(text: str) -> list[Settings]:
    """All combinations in order, the last setting changing fastest; one empty one for an empty text. The value `none` leaves a setting out.

    Raises:
        BenchmarkError: a word is no `name=value,value`, or names a setting twice or one that the command chooses itself.
    """
    values: dict[str, list[str]] = {}
    for word in text.split():
        name, equals, listed = word.partition("=")
        name = _name("--sweep", name)
        found = listed.split(",")
        if not equals or not all(found):
            raise BenchmarkError(f"--sweep {word!r}: write a setting and its values, {_EXAMPLE}")
        if name in values:
            raise BenchmarkError(f"--sweep names {name} twice: write its values together, {name}=A,B")
        if len(set(found)) < len(found):
            raise BenchmarkError(f"--sweep {word!r} has a value twice")
        values[name] = found
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def parse_range(text: str) -> Range:
    """`max_model_len=1024..65536`; sizes may have vLLM's suffixes, `kv_cache_memory_bytes=256M..8G`.

    Raises:
        BenchmarkError: it is not written so, or its ends are the wrong way round.
    """
    name, equals, ends = text.partition("=")
    low, dots, high = ends.partition("..")
    if not equals or not dots:
        raise BenchmarkError(f"--largest {text!r}: write a setting and two numbers, like max_model_len=1024..65536")
    found = Range(_name("--largest", name), _number(text, low), _number(text, high))
    if not 0 < found.low < found.high:
        raise BenchmarkError(f"--largest {text!r}: the first number has to be above 0 and below the second")
    return found


def words_of(settings: Settings) -> list[str]:
    """The arguments of `tokenport serve`."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value != LEFT_OUT]


def label_of(settings: Settings) -> str:
    """For people."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "as given"


def _name(option: str, written: str) -> str:
    name = written.strip().removeprefix("--").replace("-", "_")
    if not _NAME.fullmatch(name):
        raise BenchmarkError(f"{option} {written!r} is no setting: write {_EXAMPLE}")
    if name in _NOT_SWEPT:
        raise BenchmarkError(f"{option} cannot change {name}: the command chooses it")
    return name


def _number(text: str, written: str) -> int:
    matched = re.fullmatch(r"(\d+)([kmgKMGT]?)", written.strip())
    if matched is None:
        raise BenchmarkError(f"--largest {text!r}: {written!r} is no whole number, with a suffix of {' '.join(_UNITS).strip()} or none")
    return int(matched[1]) * _UNITS[matched[2]]


class Search:
    """The largest value of a range that fits, if what is below one that fits does too: the top first, then the bottom, then halving the
    ratio between the largest that fits and the smallest that does not, until they are within `precision` of each other."""

    def __init__(self, over: Range, precision: float = 0.05) -> None:
        self._over = over
        self._precision = precision
        self.largest_that_fits: int | None = None
        self.smallest_that_does_not: int | None = None

    def next_value(self) -> int | None:
        """What to try next; None when it is found."""
        fits, not_fits = self.largest_that_fits, self.smallest_that_does_not
        if not_fits is None:
            return None if fits == self._over.high else self._over.high
        if fits is None:
            return None if not_fits <= self._over.low else self._over.low
        middle = round((fits * not_fits) ** 0.5)
        is_found = not_fits / fits <= 1 + self._precision or middle in (fits, not_fits)
        return None if is_found else middle

    def tell(self, value: int, *, fits: bool) -> None:
        """The outcome of a try."""
        if fits:
            self.largest_that_fits = max(value, self.largest_that_fits or value)
        else:
            self.smallest_that_does_not = min(value, self.smallest_that_does_not or value)
