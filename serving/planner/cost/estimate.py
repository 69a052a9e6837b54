"""How much an instance does where nobody has measured it: the planner's roofline estimate at the load's mean lengths."""

import math
from collections.abc import Sequence

from serving.errors import PlanError
from serving.planner.cost.capacity import Capacity
from serving.planner.cost.load import Load
from serving.planner.cost.outcome import Speed
from serving.planner.hardware import Instance
from serving.planner.interval import Interval
from serving.planner.model import Model
from serving.planner.plan import AS_IT_IS, PlanRequest
from serving.planner.ranking.operation import Target
from serving.planner.ranking.ranking import Ranker
from serving.planner.speed.calibration import Measured
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow


def estimated_capacity(
    model: Model, instance: Instance, load: Load, concurrency: int, quantization: str | None, measured: Sequence[Measured] = ()
) -> Capacity:
    """With `concurrency` requests at once on the whole instance, split over its GPUs as is cheapest; `measured` narrows the estimate.

    Raises:
        PlanError: the model cannot be served there so; says why.
    """
    input_tokens, output_tokens = (math.ceil(tokens / load.num_requests) for tokens in (load.input_tokens, load.output_tokens))
    request = PlanRequest(context=input_tokens + output_tokens, concurrency=concurrency, quantization=quantization)
    target = Target(Flow(input_tokens, output_tokens, concurrency))
    ranking = Ranker(model, request, target, published_efficiency(), measured).rank([instance])
    held = None if quantization == AS_IT_IS else quantization
    found = next((one for one in ranking.winners if one.quantization == held), None)
    if found is None or found.operation is None or found.service is None:
        reasons = [reason for one in ranking.losers for reason in one.reasons]
        raise PlanError(f"--model {model.name}: cannot be served on {instance.name} as asked: {'; '.join(reasons) or 'does not fit'}")
    ttft_s, tpot_s = found.operation.speed.ttft_s, found.operation.speed.tpot_s
    assumed = f"the speed is an estimate, not a measurement: TTFT {_ends(ttft_s)}, TPOT {_ends(tpot_s)}; {found.service.efficiency.basis}"
    return Capacity(concurrency, Speed(ttft_s.estimate, tpot_s.estimate), f"estimate for {model.name}", (assumed,))


def _ends(seconds: Interval) -> str:
    return f"{seconds.low * 1000:.0f} to {seconds.high * 1000:.0f} ms"
