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
from serving.planner.ranking.ranking import Candidate, Ranker
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
    # As the checkpoint is, unless something else is asked for: the ranking must not choose a precision by itself.
    held = quantization or AS_IT_IS
    request = PlanRequest(context=input_tokens + output_tokens, concurrency=concurrency, quantization=held)
    ranker = Ranker(model, request, Target(Flow(input_tokens, output_tokens, concurrency)), published_efficiency(), measured)
    ranking = ranker.rank([instance])
    found = next(iter(ranking.winners), None)
    if found is None or found.operation is None or found.service is None:
        raise PlanError(f"--model {model.name}: cannot be served on {instance.name} as asked: {_why_not(ranking.losers[0])}")
    if unused := ranker.estimator.without_effect:
        raise PlanError(unused[0])
    ttft_s, tpot_s = found.operation.speed.ttft_s, found.operation.speed.tpot_s
    assumed = f"the speed is an estimate, not a measurement: TTFT {_ends(ttft_s)}, TPOT {_ends(tpot_s)}; {found.service.efficiency.basis}"
    return Capacity(concurrency, Speed(ttft_s.estimate, tpot_s.estimate), f"estimate for {model.name}", (assumed,))


def _why_not(loser: Candidate) -> str:
    reasons, plan = "; ".join(loser.reasons), loser.plan
    if plan is None or plan.fits or not plan.max_concurrency:
        return reasons
    return f"{reasons}; {plan.max_concurrency * loser.num_replicas} at once fit: --concurrency"


def _ends(seconds: Interval) -> str:
    return f"{seconds.low * 1000:.0f} to {seconds.high * 1000:.0f} ms"
