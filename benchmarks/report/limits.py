"""What a document says of the machine's limits, the price and the energy, in words that terminal, page and verdict share."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.words import is_number, number, percent

SHARES: Mapping[str, str] = {"mbu": "memory bandwidth (MBU)", "mfu": "arithmetic (MFU)"}


def shares(document: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What was reached of each limit, as (limit in words, share), the one that binds first."""
    found = [(name, (document.get("efficiency") or {}).get(key)) for key, name in SHARES.items()]
    return sorted(((name, share) for name, share in found if share is not None), key=lambda one: -one[1])


def share_in_words(document: Mapping[str, Any]) -> str | None:
    """`34.1 % of memory bandwidth (MBU), 5.0 % of arithmetic (MFU)`; why not, where neither is known; None where nobody asked."""
    efficiency = document.get("efficiency")
    if not efficiency:
        return None
    known = ", ".join(f"{percent(share)} of {name}" for name, share in shares(document))
    reasons = efficiency.get("reasons") or {}
    return known or (f"not known: {next(iter(reasons.values()))}" if reasons else None)


def cost_in_words(document: Mapping[str, Any]) -> str | None:
    """Dollars per million tokens, and where the price is from."""
    cost = document.get("cost") or {}
    if not is_number(cost.get("usd_per_million_output_tokens")):
        return None
    words = f"${cost['usd_per_million_output_tokens']:.2f} per million output tokens"
    if is_number(cost.get("usd_per_million_tokens_blended")):
        words += f", ${cost['usd_per_million_tokens_blended']:.2f} per million in and out"
    notes = [f"at {cost['rate_kind']}"] if cost.get("rate_kind") else []
    notes += [f"${cost['usd_per_hour']:.2f} an hour"] if is_number(cost.get("usd_per_hour")) else []
    notes += [str(cost[name]) for name in ("instance", "region", "as_of") if cost.get(name)]
    return f"{words} ({', '.join(notes)})"


def energy_in_words(document: Mapping[str, Any]) -> str | None:
    """Joules a token and mean power; why not, where the readings do not carry it."""
    energy = document.get("energy") or {}
    if energy.get("invalid_reasons"):
        return f"not known: {energy['invalid_reasons'][0]}"
    joules, power = energy.get("joules_per_output_token"), energy.get("mean_power_w")
    found = [f"{number(joules)} J an output token"] if is_number(joules) else []
    found += [f"{number(power)} W in the mean"] if is_number(power) else []
    return ", ".join(found) or None
