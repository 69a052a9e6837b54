"""How long: distributions as the command line writes them, for token counts and for seconds of thought."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.quantities import wrong

DISTRIBUTION_FORM = (
    "must be a number (128), a range (64..256), normal:MEAN,DEVIATION (normal:128,32), "
    "lognormal:MEDIAN,SIGMA (lognormal:200,0.8; sigma is of the natural logarithm) or file:PATH with a number a line"
)
Kind = Literal["fixed", "uniform", "normal", "lognormal", "file"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """`text` is as the user wrote it. `values`: the number; two ends; mean and deviation; median and sigma; or all of the file."""

    kind: Kind
    text: str
    values: tuple[float, ...]

    def draw(self, num_values: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Independent draws; from a file with replacement. Not clipped."""
        if self.kind == "fixed":
            return np.full(num_values, self.values[0])
        if self.kind == "file":
            return rng.choice(np.array(self.values), size=num_values)
        first, second = self.values
        if self.kind == "uniform":
            return rng.uniform(first, second, size=num_values)
        if self.kind == "normal":
            return rng.normal(first, second, size=num_values)
        return rng.lognormal(math.log(first), second, size=num_values)

    def draw_lengths(self, num_values: int, rng: np.random.Generator, *, minimum: int = 1, maximum: int | None = None) -> NDArray[np.int64]:
        """Whole numbers, clipped to `minimum` and `maximum`. Each of a range's numbers is as likely as any other, both ends included."""
        if self.kind == "uniform":
            drawn = rng.integers(math.ceil(self.values[0]), math.floor(self.values[1]), size=num_values, endpoint=True)
        else:
            drawn = np.rint(self.draw(num_values, rng)).astype(np.int64)
        return np.clip(drawn, minimum, maximum).astype(np.int64)

    def draw_seconds(self, num_values: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Never below zero."""
        return np.maximum(self.draw(num_values, rng), 0.0)


def fixed(value: float) -> Distribution:
    """Always `value`."""
    return Distribution("fixed", f"{value:g}", (value,))


def parse_lengths(option: str, text: str) -> Distribution:
    """A distribution of token counts, at least 1."""
    parsed = parse_distribution(option, text)
    whole = parsed.kind in ("normal", "lognormal") or all(value == int(value) for value in parsed.values)
    least = parsed.values[0] if parsed.kind in ("normal", "lognormal") else min(parsed.values)
    if not whole or least < 1:
        raise wrong(option, text, "a length is a whole number of tokens, at least 1")
    return parsed


def parse_distribution(option: str, text: str) -> Distribution:
    """A distribution of numbers that are not negative."""
    if text.startswith("file:"):
        return Distribution("file", text, _numbers_in_file(option, text, Path(text.removeprefix("file:"))))
    kind, written = _split(text)
    values = tuple(_number(value) for value in written)
    if len(values) != (1 if kind == "fixed" else 2) or any(math.isnan(value) for value in values):
        raise wrong(option, text, DISTRIBUTION_FORM)
    if kind == "uniform" and values[0] > values[1]:
        raise wrong(option, text, f"the range runs backwards; write {written[1]}..{written[0]}")
    if kind == "lognormal" and values[0] == 0:
        raise wrong(option, text, "the median of a lognormal must be above zero")
    return Distribution(kind, text, values)


def _split(text: str) -> tuple[Kind, list[str]]:
    for kind in ("normal", "lognormal"):
        if text.startswith(f"{kind}:"):
            return kind, text.removeprefix(f"{kind}:").split(",")
    return ("uniform", text.split("..")) if ".." in text else ("fixed", [text])


def _number(text: str) -> float:
    """NaN for what is no finite number of at least zero."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and value >= 0 else math.nan


def _numbers_in_file(option: str, text: str, path: Path) -> tuple[float, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(option, text, f"the file cannot be read: {error}") from error
    values = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values.append(_number(line))
        if math.isnan(values[-1]):
            raise wrong(option, text, f"line {number} is {line.strip()!r}; each line must be one number of at least zero")
    if not values:
        raise wrong(option, text, "the file has no numbers; it must have one a line")
    return tuple(values)
