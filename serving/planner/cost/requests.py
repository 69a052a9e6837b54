"""An hourly load as single requests: when each comes and how long it is. Equal seeds draw equal requests.

Within an hour requests come at random (Poisson arrivals, given how many there are). Lengths vary by a gamma distribution and are then
scaled so that the tokens of each hour are the load's to the last.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import PlanError
from serving.planner.cost.load import Load

Floats = NDArray[np.float64]
HOUR_S = 3600.0
# Some seconds of simulation; above it a shorter stretch of the same load says as much.
MAX_REQUESTS = 2_000_000


@dataclass(frozen=True)
class Requests:
    """Arrays of one entry a request, sorted by arrival, in seconds from the start; `duration_s` of the whole load."""

    arrival_s: Floats
    input_tokens: Floats
    output_tokens: Floats
    duration_s: float

    def __len__(self) -> int:
        return len(self.arrival_s)

    def where(self, chosen: NDArray[np.bool_]) -> "Requests":
        """Only those chosen, over the same time."""
        return Requests(self.arrival_s[chosen], self.input_tokens[chosen], self.output_tokens[chosen], self.duration_s)


def draw(load: Load, *, seed: int = 0, length_variation: float = 1.0) -> Requests:
    """`length_variation`: standard deviation of a request's tokens by their mean; 0 makes all of an hour equally long.

    Raises:
        PlanError: there is none, or there are more than can be simulated in a reasonable time.
    """
    # Differences of rounded sums: the total is right to one request however small the hours are.
    sums = np.rint(np.concatenate(([0.0], np.cumsum([hour.num_requests for hour in load.hours]))))
    if sums[-1] > MAX_REQUESTS:
        raise PlanError(f"{load.source}: {sums[-1]:.9g} requests are more than the {MAX_REQUESTS} simulated; give a shorter --load")
    if not sums[-1]:
        raise PlanError(f"{load.source}: has no whole request to simulate; give more of them, or a longer --load")
    numbers, total = np.diff(sums).astype(np.int64), int(sums[-1])
    rng = np.random.default_rng(seed)
    hour_of = np.repeat(np.arange(len(numbers)), numbers)
    arrival_s = np.sort((hour_of + rng.random(total)) * HOUR_S)
    lengths = []
    for means in ([hour.input_tokens for hour in load.hours], [hour.output_tokens for hour in load.hours]):
        factors = rng.gamma(length_variation**-2, size=total) if length_variation else np.ones(total)
        sums = np.bincount(hour_of, weights=factors, minlength=len(numbers))
        mean_factor = np.divide(sums, numbers, out=np.ones(len(numbers)), where=numbers > 0)
        lengths.append(factors / mean_factor[hour_of] * np.array(means)[hour_of])
    return Requests(arrival_s, lengths[0], lengths[1], len(load.hours) * HOUR_S)
