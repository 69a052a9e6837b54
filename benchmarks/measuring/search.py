"""The highest rate that keeps limits, found by measuring: up by doubling until one fails, then halving the distance. Knows no server."""

from collections.abc import Callable, Iterator

_MAX_DOUBLINGS = 12


def search_rate(keeps: Callable[[float], bool], start: float, tolerance: float) -> Iterator[tuple[float, bool]]:
    """Measure at rates of the search's choice and yield each with whether it kept the limits, as it is measured.

    Starts at `start` requests a second; ends when the highest rate that kept them and the lowest that did not are within `tolerance` (0.1:
    a tenth) of each other, or when twelve doublings or halvings have found no rate of the other kind.
    """
    kept, failed = 0.0, float("inf")
    rate = start
    for _ in range(_MAX_DOUBLINGS):
        is_kept = keeps(rate)
        yield rate, is_kept
        if is_kept:
            kept = rate
            rate = 2 * rate
        else:
            failed = rate
            rate = rate / 2
        if kept and failed < float("inf"):
            break
    else:
        return
    while failed / kept > 1 + tolerance:
        # In the middle of the ratios: rates are compared by their ratios.
        rate = (kept * failed) ** 0.5
        is_kept = keeps(rate)
        yield rate, is_kept
        kept, failed = (rate, failed) if is_kept else (kept, rate)
