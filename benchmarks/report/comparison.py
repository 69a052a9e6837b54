"""Sides against the first one: each figure with its difference, an interval, and whether it is more than noise.

A side is one document, or the documents of several rounds that were measured in turn with those of the other side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.report.comparable import differing_settings, warnings
from benchmarks.report.figures import better
from benchmarks.report.measured import WITH_LOAD, Document, Load, can_be_cut, loads_of
from benchmarks.report.uncertainty import Spread, over_blocks, over_pairs, over_repeats, over_requests
from serving.errors import BenchmarkError

_ENOUGH_BEYOND = 5
"""So many samples have to lie beyond a percentile on each side for its difference to be told: n (1 - p) >= 5."""


@dataclass(frozen=True, slots=True)
class Side:
    """`documents`: one, or one a round in the order of the rounds."""

    name: str
    documents: Sequence[Document]


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two sides. `verdict`: `better`, `worse` or `changed` (where it depends) beyond noise; `noise`; `unclear` where the
    data give no interval, for the `reason` told. A side that has not the figure is None."""

    name: str
    a: float | None
    b: float | None
    spread: Spread | None
    verdict: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """With the difference, its interval and the method beside the two values."""
        known = self.a is not None and self.b is not None
        return {
            "metric": self.name,
            "a": self.a,
            "b": self.b,
            "difference": (self.b or 0) - (self.a or 0) if known else None,
            "spread": None if self.spread is None else asdict(self.spread),
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """One side against the first. `loads`: name of each load that both have -> its figures. `warnings`: what makes the two incomparable;
    `differing`: settings and versions in which they differ, the reason for comparing them among these."""

    a: Side
    b: Side
    loads: Mapping[str, Sequence[Difference]]
    warnings: Sequence[str]
    differing: Sequence[str]

    @property
    def methods(self) -> list[str]:
        """How the intervals were found, in the order of the figures."""
        spreads = (difference.spread for differences in self.loads.values() for difference in differences)
        return list(dict.fromkeys(spread.method for spread in spreads if spread is not None))

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "a": self.a.name,
            "b": self.b.name,
            "warnings": list(self.warnings),
            "differing": list(self.differing),
            "loads": {name: [difference.to_json() for difference in differences] for name, differences in self.loads.items()},
        }


def compare(a: Side, b: Side) -> Comparison:
    """Every figure that both sides have, load by load.

    Raises:
        BenchmarkError: they are results of different commands, or have no load in common.
    """
    kinds = {document["kind"] for side in (a, b) for document in side.documents}
    if len(kinds) > 1:
        raise BenchmarkError(f"{a.name} and {b.name} cannot be compared: one is of {' and one of '.join(sorted(kinds))}")
    # Different seeds for the two sides: they are drawn independently.
    of_a = [loads_of(document, 2 * index) for index, document in enumerate(a.documents)]
    of_b = [loads_of(document, 2 * index + 1) for index, document in enumerate(b.documents)]
    pairs = _pairs(of_a, of_b)
    if not pairs:
        raise BenchmarkError(f"{a.name} and {b.name} have no load in common: {', '.join(of_a[0])}; {', '.join(of_b[0])}")
    told = [words for side in (a, b) for words in _invalid(side)] + warnings(a.documents[0], b.documents[0])
    loads = {name: _differences(*sides) for name, sides in pairs.items()}
    return Comparison(a, b, loads, told, differing_settings(a.documents[0], b.documents[0]))


def _pairs(a: Sequence[Mapping[str, Load]], b: Sequence[Mapping[str, Load]]) -> dict[str, tuple[list[Load], list[Load]]]:
    """Name of each load that all documents have -> it on both sides. Where each has one, those belong together whatever they are: a
    warning tells."""
    if len(a[0]) == len(b[0]) == 1:
        name = " / ".join(dict.fromkeys([*a[0], *b[0]]))
        return {name: ([next(iter(loads.values())) for loads in a], [next(iter(loads.values())) for loads in b])}
    in_all = [name for name in a[0] if all(name in loads for loads in (*a, *b))]
    return {name: ([loads[name] for loads in a], [loads[name] for loads in b]) for name in in_all}


def _invalid(side: Side) -> list[str]:
    reasons = dict.fromkeys(reason for document in side.documents for reason in document["invalid_reasons"])
    return [f"{side.name} is INVALID: {'; '.join(reasons)}"] if reasons else []


def _differences(a: Sequence[Load], b: Sequence[Load]) -> list[Difference]:
    names = [name for name in a[0].figures if name in b[0].figures]
    found = [_of_rounds(name, a, b) if len(a) > 1 and len(a) == len(b) else _of_two(name, a[0], b[0]) for name in names]
    # A percentile with too few samples is told as such; what nobody measured is not.
    measured = {one.name.partition(".")[0] for one in found if one.a is not None or one.b is not None}
    return [one for one in found if one.name.partition(".")[0] in measured]


def _of_rounds(name: str, a: Sequence[Load], b: Sequence[Load]) -> Difference:
    values_a, values_b = [load.figures.get(name) for load in a], [load.figures.get(name) for load in b]
    known = [(one, other) for one, other in zip(values_a, values_b, strict=True) if one is not None and other is not None]
    if len(known) < len(values_a):
        return Difference(name, values_a[0], values_b[0], None, "unclear", "too few samples in some rounds")
    spread = over_pairs([one for one, _ in known], [other for _, other in known])
    return _judged(name, spread)


def _of_two(name: str, a: Load, b: Load) -> Difference:
    value_a, value_b = a.figures[name], b.figures[name]
    if value_a is None or value_b is None:
        return Difference(name, value_a, value_b, None, "unclear", "too few samples")
    repeats = [[repeat.get(name) for repeat in load.repeats] for load in (a, b)]
    if all(repeats) and all(value is not None for side in repeats for value in side):
        spread = over_repeats(*[[value for value in side if value is not None] for side in repeats])
        if spread is not None:
            return _judged(name, spread)
    if can_be_cut(name) and a.document["kind"] in WITH_LOAD:
        spread = over_blocks(a.blocks(name), b.blocks(name), value_a, value_b)
        return _judged(name, spread) if spread else _unclear(name, value_a, value_b, "the windows are too short for blocks; repeat the run")
    return _by_requests(name, a, b, value_a, value_b)


def _by_requests(name: str, a: Load, b: Load, value_a: float, value_b: float) -> Difference:
    is_sampled = name.endswith("share") or name.partition(".")[0] in ("ttft_s", "tpot_s", "itl_s", "e2e_s")
    drawn = (a.resampled(name), b.resampled(name)) if is_sampled and a.document["kind"] in WITH_LOAD else (None, None)
    if drawn[0] is None or drawn[1] is None:
        return _unclear(name, value_a, value_b, "one value a side; repeat the run")
    figure = name.partition(".")[2]
    if figure.startswith("p"):
        fewest = min(load.num_samples(name) for load in (a, b))
        if fewest * (100 - int(figure[1:])) < 100 * _ENOUGH_BEYOND:
            return _unclear(name, value_a, value_b, f"{fewest} samples are too few to tell a difference of it")
    return _judged(name, over_requests(drawn[0], drawn[1], value_a, value_b))


def _judged(name: str, spread: Spread | None) -> Difference:
    if spread is None:
        raise BenchmarkError(f"{name}: two rounds or more are needed")
    if spread.is_noise:
        return Difference(name, spread.a, spread.b, spread, "noise")
    direction = better(name) * (1 if spread.low > 0 else -1)
    return Difference(name, spread.a, spread.b, spread, {1: "better", -1: "worse", 0: "changed"}[direction])


def _unclear(name: str, a: float, b: float, reason: str) -> Difference:
    return Difference(name, a, b, None, "noise" if a == b else "unclear", "" if a == b else reason)
