"""A figure that is not known exactly: the best estimate, and the two ends that it is expected to lie between."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """`low` <= `estimate` <= `high`, in the unit of what it measures."""

    estimate: float
    low: float
    high: float

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.estimate + other.estimate, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Interval":
        """Each end `factor` times as large; `factor` is not negative."""
        return Interval(self.estimate * factor, self.low * factor, self.high * factor)

    def to_json(self) -> dict[str, float]:
        """The form in which `tokenport plan --json` prints it."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


def exactly(value: float) -> Interval:
    """A figure that is known."""
    return Interval(value, value, value)
