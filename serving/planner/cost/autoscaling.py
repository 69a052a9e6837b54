"""When an endpoint's instances become more or fewer: target tracking on the requests that an instance has at once.

The metric comes every 10 s (SageMaker's ConcurrentRequestsPerModel, which counts waiting requests too). More instances are started once
it has asked for them so long without a break; fewer are kept once it has asked for fewer so long, as many as it asked for at most in that
time, and none while one is starting. From zero only a request that found no instance starts one, by an alarm of its own.
"""

import math
from dataclasses import dataclass

PERIOD_S = 10.0


@dataclass(frozen=True)
class Autoscaling:
    """`target_concurrency` of one instance; `cold_start_s` from the decision to an instance that answers. `wake_after_s` from the first
    refused request to the decision to start the first instance."""

    min_instances: int
    max_instances: int
    target_concurrency: float
    cold_start_s: float
    scale_out_after_s: float = 30.0
    scale_in_after_s: float = 900.0
    wake_after_s: float = 60.0


class Scaler:
    """The policy with its memory of the last periods; asked once a period."""

    def __init__(self, policy: Autoscaling) -> None:
        self._policy = policy
        self._num_above = 0
        self._num_below = 0
        self._most_below = 0

    def desired(self, num_in_flight: int, num_instances: int, *, is_starting: bool) -> int:
        """How many instances there should be from now on; `num_instances` with those that are starting, if any is."""
        policy = self._policy
        wanted = math.ceil(num_in_flight / policy.target_concurrency)
        wanted = min(max(wanted, policy.min_instances), policy.max_instances)
        self._num_above = self._num_above + 1 if wanted > num_instances else 0
        self._most_below = max(self._most_below, wanted) if self._num_below else wanted
        self._num_below = self._num_below + 1 if wanted < num_instances and not is_starting else 0
        if self._num_above * PERIOD_S >= policy.scale_out_after_s and self._num_above:
            self._num_above = 0
            return wanted
        if self._num_below * PERIOD_S >= policy.scale_in_after_s and self._num_below:
            self._num_below = 0
            return self._most_below
        return num_instances


def fixed(num_instances: int) -> Autoscaling:
    """So many all the time."""
    return Autoscaling(num_instances, num_instances, target_concurrency=1, cold_start_s=0)
