"""What a million tokens cost at the rate that was measured: the price of an hour by the tokens of an hour.

The price is the caller's, or of the dated table that the planner has. The rate counts as if every hour were as full as the measured one; a
machine that is used half the time costs twice as much a token, and the document says so.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from serving.errors import BenchmarkError
from serving.planner.prices import PRICES, read_prices

DEFINITION = (
    "Dollars per million output tokens: the price of an hour divided by the output tokens of an hour at the rate named in `rate_kind`. "
    "Everything is laid on the output tokens. blended: dollars per million tokens, input and output together, at the same price. It counts "
    "the machine as busy all the time: at a share of use u the cost is 1/u times as much."
)
_SECONDS_PER_HOUR = 3600
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for one hour of the machine; `as_of` and `source` tell where an entry of the table is from."""

    usd_per_hour: float
    instance: str | None = None
    region: str | None = None
    as_of: str | None = None
    source: str = "--price-per-hour"


def price_of(instance: str | None, per_hour: float | None, table: Path = PRICES) -> Price | None:
    """The price by `--price-per-hour` or by `--instance`; None where neither is given.

    Raises:
        BenchmarkError: both are given, the price is none, or the table has no such instance.
    """
    if per_hour is not None:
        if instance is not None:
            raise BenchmarkError(f"--price-per-hour {per_hour:g} and --instance {instance} both name a price: give one of them")
        if not per_hour > 0:
            raise BenchmarkError(f"--price-per-hour {per_hour:g}: give dollars above 0")
        return Price(per_hour)
    return None if instance is None else _look_up(instance, table)


def _look_up(instance: str, table: Path) -> Price:
    entries = read_prices(table)
    if instance not in entries:
        near = get_close_matches(instance, entries, n=1, cutoff=0.0)[0]
        raise BenchmarkError(
            f"--instance {instance!r} is not in the price table; the nearest there is {near}. Give its price: --price-per-hour"
        )
    entry = entries[instance]
    return Price(entry.usd_per_hour, instance, entry.region, entry.as_of, entry.source)


def cost(
    price: Price,
    output_tokens_per_s: float | None,
    input_tokens_per_s: float | None = None,
    *,
    rate_kind: Literal["goodput", "throughput"] = "throughput",
    num_instances: int = 1,
) -> dict[str, Any]:
    """The document's "cost". `blended` takes the input tokens in as well; figures are None where no token was made in the time."""
    usd_per_s = price.usd_per_hour * num_instances / _SECONDS_PER_HOUR
    blended = None if input_tokens_per_s is None or output_tokens_per_s is None else input_tokens_per_s + output_tokens_per_s
    return {
        "usd_per_million_output_tokens": _per_million(usd_per_s, output_tokens_per_s),
        "usd_per_million_tokens_blended": _per_million(usd_per_s, blended),
        "input_tokens_per_output_token": _ratio(input_tokens_per_s, output_tokens_per_s),
        "rate_kind": rate_kind,
        "output_tokens_per_s": output_tokens_per_s,
        "num_instances": num_instances,
        "price_per_hour": price.usd_per_hour,
        "instance": price.instance,
        "region": price.region,
        "as_of": price.as_of,
        "source": price.source,
        "definition": DEFINITION,
    }


def _per_million(usd_per_s: float, tokens_per_s: float | None) -> float | None:
    return usd_per_s / tokens_per_s * _MILLION if tokens_per_s else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
