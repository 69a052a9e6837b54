"""Figures as people read them: three significant digits with a unit that keeps them short. Unknown is a dash."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

UNKNOWN = "-"

LATENCY_NAMES: Mapping[str, str] = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}
LATENCY_MEANINGS: Mapping[str, str] = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token after the first",
    "itl_s": "gap between pieces of output",
    "e2e_s": "time to the last token",
}
FIGURES = ("mean", "p50", "p90", "p99")


def number(value: Any) -> str:
    """1234.5 -> 1,234; 12.345 -> 12.3; 0.01234 -> 0.0123."""
    if not is_number(value):
        return UNKNOWN
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def seconds(value: Any) -> str:
    """0.01234 -> 12.3 ms; 75 -> 75 s."""
    if not is_number(value):
        return UNKNOWN
    size = abs(value)
    if size >= 1 or value == 0:
        return f"{number(value)} s" if size >= 10 else f"{value:.2f} s"
    return f"{_three(value * 1e3)} ms" if size >= 1e-3 else f"{_three(value * 1e6)} µs"


def percent(share: Any, *, signed: bool = False) -> str:
    """0.1234 -> 12.3 %."""
    if not is_number(share):
        return UNKNOWN
    digits = 0 if abs(share) >= 1 else 1
    return f"{share * 100:{'+' if signed else ''}.{digits}f} %"


def size(num_bytes: Any) -> str:
    """In GiB, small ones in MiB."""
    if not is_number(num_bytes):
        return UNKNOWN
    return f"{num_bytes / 2**30:.2f} GiB" if abs(num_bytes) >= 2**30 / 10 else f"{num_bytes / 2**20:.1f} MiB"


def quantity(name: str, value: Any) -> str:
    """A value in the unit that its dotted name tells, by the last part that tells one."""
    for part in reversed(name.split(".")):
        if part.startswith("num_"):
            break
        if part.endswith("_per_s"):
            return f"{number(value)} /s" if is_number(value) else UNKNOWN
        for end, form in (("_bytes", size), ("_s", seconds), ("share", percent)):
            if part.endswith(end):
                return form(value)
    return number(value)


def interval(bounds: Sequence[Any] | None, form: Callable[[Any], str]) -> str:
    """`low … high` in the form of its values, a unit that both have told once, an end that is not bound as a dash; empty where there is
    none."""
    if not bounds or not any(is_number(bound) for bound in bounds):
        return ""
    low, high = form(bounds[0]), form(bounds[1])
    unit = "".join(high.partition(" ")[1:])
    return f"{low.removesuffix(unit)} … {high}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 request, 2 requests."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def load_name(load: Mapping[str, Any] | None) -> str:
    """How the requests came: `concurrency 8`, `2.5 requests/s`."""
    if not load:
        return "the run"
    kind, concurrency, rate = load.get("kind"), load.get("concurrency"), load.get("rate")
    if kind == "closed" and concurrency is not None:
        return f"concurrency {concurrency}"
    if is_number(rate):
        return f"{rate:.6g} requests/s" + (f", at most {concurrency} at once" if concurrency else "")
    return str(load.get("label") or kind)


def is_number(value: Any) -> bool:
    """A number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
