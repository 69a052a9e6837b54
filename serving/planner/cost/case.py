"""What is to be compared, with every value settled: the load, the limits, and what there is to answer it with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from serving.planner.cost.autoscaling import Autoscaling, fixed
from serving.planner.cost.capacity import Capacity
from serving.planner.cost.functions import Function
from serving.planner.cost.load import Load
from serving.planner.cost.options import HOURS_PER_MONTH, Endpoint, Mixture, OnDemand, Option, Provisioned
from serving.planner.cost.outcome import Slo
from serving.planner.cost.prices import ProvisionedPrice
from serving.planner.cost.requests import Requests, draw
from serving.planner.cost.sizing import Evaluated, evaluate, smallest


@dataclass(frozen=True)
class Api:
    """A model paid by the token, and what model units of it cost."""

    on_demand: OnDemand
    provisioned: tuple[ProvisionedPrice, ...] = ()

    def units(self, price: ProvisionedPrice, num_units: int) -> Provisioned:
        """So many of one price, with clients as patient as those on demand."""
        return Provisioned(price, num_units, self.on_demand.speed, self.on_demand.quota.num_attempts, self.on_demand.seed)


@dataclass(frozen=True)
class Own:
    """Instances of one's own; `price_source` with its date. `autoscaling`, with the fewest that it keeps where it does not go down to none;
    None: what it needs is not known, their number stays fixed."""

    instance: str
    usd_per_hour: float
    price_source: str
    capacity: Capacity
    autoscaling: Autoscaling | None = None

    def endpoint(self, scaling: Autoscaling) -> Endpoint:
        """So many of them."""
        speed, concurrency = self.capacity.speed, self.capacity.concurrency
        return Endpoint(self.instance, self.usd_per_hour, self.price_source, concurrency, speed, scaling)


@dataclass(frozen=True)
class Case:
    """`most_units` that are tried of instances and of model units."""

    load: Load
    slo: Slo
    api: Api | None = None
    own: Own | None = None
    function: Function | None = None
    most_units: int = 16
    length_variation: float = 1.0
    seed: int = 0

    def draw(self, load: Load) -> Requests:
        """Requests of a load of this case."""
        return draw(load, seed=self.seed, length_variation=self.length_variation)

    def scaled(self, factor: float) -> "Case":
        """The same at so many times the load."""
        return replace(self, load=self.load.scaled(factor))


def evaluated(case: Case) -> list[Evaluated]:
    """Every option of the case, sized to hold the SLO where that can be chosen, simulated on the same requests."""
    requests = case.draw(case.load)
    return [*_of_api(case, requests), *_of_own(case, requests)]


def cheapest(found: list[Evaluated]) -> Evaluated | None:
    """Of those that hold the SLO."""
    return min((one for one in found if one.holds), key=lambda one: one.run.usd_per_month, default=None)


def _of_api(case: Case, requests: Requests) -> Iterator[Evaluated]:
    if case.api is None:
        return
    api = case.api
    yield evaluate(api.on_demand, requests, case.slo)
    if case.function is not None:
        yield evaluate(case.function, requests, case.slo)
    for price in api.provisioned:
        sized = partial(api.units, price)
        yield smallest(partial(_attempt, sized, requests, case.slo), case.most_units)[1]


def _of_own(case: Case, requests: Requests) -> Iterator[Evaluated]:
    if case.own is None:
        return
    own = case.own
    yield smallest(partial(_attempt, lambda number: own.endpoint(fixed(number)), requests, case.slo), case.most_units)[1]
    on_demand = case.api.on_demand if case.api else None
    if on_demand is not None:
        yield _cheapest_base(own, on_demand, case.most_units, requests, case.slo)
    if own.autoscaling is None:
        return
    fewest, most = own.autoscaling.min_instances, own.autoscaling.max_instances
    # Down to the fewest, and down to none; as many at least as at most do not scale.
    for few in (fewest, 0) if fewest < most else (0,):
        endpoint = own.endpoint(replace(own.autoscaling, min_instances=few))
        yield evaluate(endpoint, requests, case.slo)
        if on_demand is not None:
            yield evaluate(Mixture(endpoint, on_demand), requests, case.slo)


def _cheapest_base(own: Own, on_demand: OnDemand, most: int, requests: Requests, slo: Slo) -> Evaluated:
    """Of the numbers of instances under an API for the rest, the cheapest that holds the SLO; where none does, the cheapest."""
    found: list[Evaluated] = []
    for base in range(1, most + 1):
        found.append(evaluate(Mixture(own.endpoint(fixed(base)), on_demand), requests, slo))
        best, usd_of_one_more = cheapest(found), (base + 1) * own.usd_per_hour * HOURS_PER_MONTH
        if len(found[-1].run.charges) == 1 or (best and best.run.usd_per_month <= usd_of_one_more):
            # Nothing is left for the API, or one more alone costs what the best does with its tokens.
            break
    return cheapest(found) or min(found, key=lambda one: one.run.usd_per_month)


def _attempt(sized: Callable[[int], Option], requests: Requests, slo: Slo, num_units: int) -> Evaluated:
    return evaluate(sized(num_units), requests, slo)
