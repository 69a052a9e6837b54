"""The ways to have a load answered, each with its simulation and its bill: an API on demand, provisioned units of it, one's own endpoint.

Bills are of a month of 730 hours like those simulated. What is refused is not paid. Taxes, data transfer, storage, discounts and free tiers
are not in them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serving.planner.cost.autoscaling import Autoscaling
from serving.planner.cost.fleet import run_fleet
from serving.planner.cost.outcome import Outcome, Speed, outcome
from serving.planner.cost.prices import Commitment, OnDemandPrice, ProvisionedPrice
from serving.planner.cost.quota import MINUTE_S, Quota, admit
from serving.planner.cost.requests import HOUR_S, Requests

HOURS_PER_MONTH = 730.0
_MILLION = 1e6
COMMITMENTS: dict[Commitment, tuple[int, str]] = {
    "none": (0, "no commitment"),
    "1-month": (1, "1 month"),
    "6-months": (6, "6 months"),
}


@dataclass(frozen=True)
class Charge:
    """One line of a month's bill: `quantity` of `unit` at `usd_per_unit`, whose price is from `source`."""

    what: str
    quantity: float
    unit: str
    usd_per_unit: float
    source: str

    @property
    def usd(self) -> float:
        """For the month."""
        return self.quantity * self.usd_per_unit


@dataclass(frozen=True)
class Run:
    """What came of a simulation. `million_tokens_per_month` answered, input and output; `utilisation` of what is paid by the hour, None
    where nothing is; `num_instances` on average."""

    outcome: Outcome
    charges: tuple[Charge, ...]
    million_tokens_per_month: float
    utilisation: float | None = None
    num_instances: float | None = None

    @property
    def usd_per_month(self) -> float:
        """All charges."""
        return sum(charge.usd for charge in self.charges)


class Option(Protocol):
    """A way to have a load answered."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        ...

    def run(self, requests: Requests) -> Run:
        """Simulate it."""
        ...


@dataclass(frozen=True)
class OnDemand:
    """An API that is paid by the token, of `speed` if that is known."""

    price: OnDemandPrice
    quota: Quota
    speed: Speed | None
    seed: int = 0

    @property
    def name(self) -> str:
        """As the report calls it."""
        return "on-demand"

    def run(self, requests: Requests) -> Run:
        """Requests above the quota are sent again, and refused in the end."""
        wait_s, is_refused = admit(requests, self.quota, seed=self.seed)
        served, source = requests.where(~is_refused), f"{self.price.source} ({self.price.as_of})"
        charges = tuple(
            Charge(f"{what} tokens", float(tokens.sum()) / _MILLION / months(requests), "million", usd_per_million, source)
            for what, tokens, usd_per_million in (
                ("input", served.input_tokens, self.price.input_usd_per_million),
                ("output", served.output_tokens, self.price.output_usd_per_million),
            )
        )
        return Run(outcome(wait_s, is_refused, requests.output_tokens, self.speed), charges, million_tokens_per_month(served))


@dataclass(frozen=True)
class Provisioned:
    """Model units, paid every hour until they are deleted. `price` says what each carries a minute."""

    price: ProvisionedPrice
    num_units: int
    speed: Speed | None
    num_attempts: int = 3
    seed: int = 0

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"provisioned, {self.num_units} x, {COMMITMENTS[self.price.commitment][1]}"

    def run(self, requests: Requests) -> Run:
        """Requests above what the units carry are sent again, and refused in the end."""
        price = self.price
        input_limit, output_limit = self._limit(price.input_tokens_per_minute), self._limit(price.output_tokens_per_minute)
        quota = Quota(input_tokens_per_minute=input_limit, output_tokens_per_minute=output_limit, num_attempts=self.num_attempts)
        wait_s, is_refused = admit(requests, quota, seed=self.seed)
        served, minutes = requests.where(~is_refused), requests.duration_s / MINUTE_S
        carried = ((served.input_tokens, input_limit), (served.output_tokens, output_limit))
        used = [float(tokens.sum()) / minutes / limit for tokens, limit in carried if limit is not None]
        charge = Charge("model units", HOURS_PER_MONTH * self.num_units, "hour", price.usd_per_hour, f"{price.source} ({price.as_of})")
        found = outcome(wait_s, is_refused, requests.output_tokens, self.speed)
        return Run(found, (charge,), million_tokens_per_month(served), max(used, default=None))

    def _limit(self, tokens: float | None) -> float | None:
        return None if tokens is None else tokens * self.num_units


@dataclass(frozen=True)
class Endpoint:
    """One's own instances. Each works on `concurrency` requests at once, at `speed` when it is full."""

    instance: str
    usd_per_hour: float
    price_source: str
    concurrency: int
    speed: Speed
    scaling: Autoscaling

    @property
    def name(self) -> str:
        """As the report calls it."""
        few, most = self.scaling.min_instances, self.scaling.max_instances
        return f"endpoint, {few if few == most else f'{few} to {most}'} x"

    def run(self, requests: Requests) -> Run:
        """What finds no instance up is refused; what finds no room waits."""
        return self.run_with_overflow(requests, None)

    def run_with_overflow(self, requests: Requests, elsewhere: OnDemand | None) -> Run:
        """With `elsewhere`, what finds no room goes there at once instead of waiting."""
        fleet = run_fleet(
            requests.arrival_s,
            self.speed.service_s(requests.output_tokens),
            concurrency=self.concurrency,
            scaling=self.scaling,
            duration_s=requests.duration_s,
            can_wait=elsewhere is None,
        )
        hours = fleet.instance_s / HOUR_S
        charges: tuple[Charge, ...] = (Charge(self.instance, hours / months(requests), "hour", self.usd_per_hour, self.price_source),)
        found = outcome(fleet.wait_s, fleet.is_turned_away, requests.output_tokens, self.speed)
        if elsewhere is not None and fleet.is_turned_away.any():
            other = elsewhere.run(requests.where(fleet.is_turned_away))
            found, charges = _joined(found, other.outcome), charges + other.charges
        utilisation = fleet.busy_s / (fleet.instance_s * self.concurrency) if fleet.instance_s else 0.0
        served = million_tokens_per_month(requests.where(~found.is_refused))
        return Run(found, charges, served, utilisation, fleet.instance_s / requests.duration_s)


@dataclass(frozen=True)
class Mixture:
    """One's own endpoint for the base; what finds no room there goes to the API at once."""

    endpoint: Endpoint
    on_demand: OnDemand

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.endpoint.name} + on-demand"

    def run(self, requests: Requests) -> Run:
        """Nobody waits for the endpoint."""
        return self.endpoint.run_with_overflow(requests, self.on_demand)


def months(requests: Requests) -> float:
    """How long the load is."""
    return requests.duration_s / HOUR_S / HOURS_PER_MONTH


def million_tokens_per_month(served: Requests) -> float:
    """Input and output of requests that were answered."""
    return float(served.input_tokens.sum() + served.output_tokens.sum()) / _MILLION / months(served)


def _joined(first: Outcome, rest: Outcome) -> Outcome:
    """`first`, with `rest` in the places where it refused."""
    where = first.is_refused
    arrays = []
    for own, other in ((first.wait_s, rest.wait_s), (first.ttft_s, rest.ttft_s), (first.e2e_s, rest.e2e_s)):
        joined = own.copy()
        joined[where] = other
        arrays.append(joined)
    is_refused = np.zeros_like(where)
    is_refused[where] = rest.is_refused
    return Outcome(is_refused, *arrays)
