"""One tier of the cascade as the chain knows it."""

from collections.abc import Mapping
from dataclasses import dataclass

from serving.cascade.breaker import Breaker
from serving.cascade.config import Bounds
from serving.cascade.costs import Meter
from serving.engine.interface import RemoteModel


@dataclass(frozen=True)
class Tier:
    """`takes`: bounds on a request's features, all of which must hold. `sampling`: fields that requests to it have if they say nothing
    else. `is_local`: the engine of this process. `tells_running_usage`: its streams can say with every chunk what has been used (vLLM's
    `continuous_usage_stats`)."""

    name: str
    model: RemoteModel
    meter: Meter
    breaker: Breaker
    takes: Mapping[str, Bounds]
    sampling: Mapping[str, float | int]
    is_local: bool
    tells_running_usage: bool
