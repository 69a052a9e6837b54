"""Joules over the steady window from the telemetry's rows: by the card's own energy counter, else by the area under its power readings.

A reading stands for the time around it only as long as the next one is near: a gap of more than three seconds makes the figure invalid, and
the largest gap stands beside it (the rule of https://github.com/SemiAnalysisAI/InferenceX).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.measuring.window import Window

MAX_GAP_S = 3.0
DEFINITION = (
    "Energy that the GPUs drew in the window, idle power included, all cards that NVML shows: from each card's energy counter, else the "
    "trapezoids under its power readings; at the window's ends between the readings around them. Joules per output token: by the output "
    "tokens that arrived in the window. The rest of the machine is not in it."
)
_Points = list[tuple[float, float]]


def energy(timeline: Sequence[Mapping[str, Any]], window: Window, num_output_tokens: float) -> dict[str, Any] | None:
    """The document's "energy"; None where no GPU was read at all."""
    rows = [row for row in timeline if row.get("gpus")]
    indices = sorted({gpu["index"] for row in rows for gpu in row["gpus"]})
    if not indices:
        return None
    cards = [_of_card(rows, index, window) for index in indices]
    reasons = [f"GPU {card['index']}: {reason}" for card in cards for reason in card.pop("invalid_reasons")]
    known = [card["energy_j"] for card in cards if card["energy_j"] is not None]
    total = sum(known) if known and len(known) == len(cards) else None
    return {
        "energy_j": total,
        "joules_per_output_token": total / num_output_tokens if total is not None and num_output_tokens > 0 and not reasons else None,
        "mean_power_w": total / window.length_s if total is not None and window.length_s > 0 else None,
        "valid": not reasons,
        "invalid_reasons": reasons,
        "gpus": cards,
        "definition": DEFINITION,
    }


def _of_card(rows: Sequence[Mapping[str, Any]], index: int, window: Window) -> dict[str, Any]:
    readings = [(row["at_s"], gpu) for row in rows for gpu in row["gpus"] if gpu["index"] == index]
    counted = _Points((at_s, gpu["energy_j"]) for at_s, gpu in readings if gpu["energy_j"] is not None)
    powers = _Points((at_s, gpu["power_w"]) for at_s, gpu in readings if gpu["power_w"] is not None)
    how, points = ("counter", counted) if len(counted) >= 2 else ("trapezoids", powers)
    reasons = []
    gap_s = largest_gap_s(points, window)
    if len(points) < 2 or points[0][0] > window.start_s or points[-1][0] < window.end_s:
        reasons.append("not read over the whole window")
    elif gap_s > MAX_GAP_S:
        reasons.append(f"not read for {gap_s:.1f} s, more than {MAX_GAP_S:g} s")
    joules = None if len(points) < 2 else counted_j(points, window) if how == "counter" else area_j(points, window)
    if how == "counter" and joules is not None and joules < 0:
        joules = None
        reasons.append("the energy counter went back: the driver was loaded again")
    return {"index": index, "energy_j": joules, "how": how, "largest_gap_s": round(gap_s, 3), "invalid_reasons": reasons}


def largest_gap_s(points: Sequence[tuple[float, float]], window: Window) -> float:
    """The longest time within the window without a reading, its ends included."""
    times = [window.start_s, *(time for time, _ in points if window.holds(time)), window.end_s]
    return max(later - earlier for earlier, later in pairwise(times))


def counted_j(points: Sequence[tuple[float, float]], window: Window) -> float:
    """What the counter rose by between the window's ends."""
    return value_at(points, window.end_s) - value_at(points, window.start_s)


def area_j(points: Sequence[tuple[float, float]], window: Window) -> float:
    """The area under the readings between the window's ends."""
    inside = [(time, watts) for time, watts in points if window.start_s < time < window.end_s]
    ends = [(window.start_s, value_at(points, window.start_s)), *inside, (window.end_s, value_at(points, window.end_s))]
    return sum((right - left) * (first + second) / 2 for (left, first), (right, second) in pairwise(ends))


def value_at(points: Sequence[tuple[float, float]], time_s: float) -> float:
    """Between the readings around `time_s`; before the first and after the last, those."""
    if time_s <= points[0][0]:
        return points[0][1]
    for (left, first), (right, second) in pairwise(points):
        if left <= time_s <= right:
            return first if right == left else first + (second - first) * (time_s - left) / (right - left)
    return points[-1][1]
