"""A ranking as plain data, for `tokenport plan --json`."""

from dataclasses import asdict
from typing import Any

from serving.planner.interval import Interval
from serving.planner.model import Model
from serving.planner.plan import PerGpu, PlanRequest
from serving.planner.ranking.deployment import deploy_command, settings_of, values_of
from serving.planner.ranking.ranking import Candidate, Ranking

ESTIMATE = (
    "Speeds and costs are estimates from a roofline, not measurements: means in a steady flow, each with the ends it is expected between. "
    "Costs count the instance as busy all the time. Measure with `tokenport bench throughput`, and give the result to --calibrate."
)


def ranking_json(ranking: Ranking, model: Model, request: PlanRequest, assumed: list[str]) -> dict[str, Any]:
    """`winners` and `losers` as in `Ranking`, and the fields of a plan: that of the first winner, or, where nothing keeps the target, that
    of the first candidate that fits."""
    plans = [one.plan for one in (*ranking.winners, *ranking.losers) if one.plan is not None]
    plan = next((one for one in plans if one.fits), plans[0] if plans else None)
    return {
        **(plan.to_json() if plan is not None else {"fits": False}),
        "model": model.name,
        "target": {**asdict(ranking.target.flow), **{name: getattr(ranking.target, name) for name in ("ttft_s", "tpot_s", "usd_per_hour")}},
        "context": request.context,
        "estimate": ESTIMATE,
        "winners": [_candidate(one, model, request) for one in ranking.winners],
        "losers": [_candidate(one, model, request) for one in ranking.losers],
        "assumed": assumed,
    }


def _candidate(candidate: Candidate, model: Model, request: PlanRequest) -> dict[str, Any]:
    instance, plan, speed = candidate.instance, candidate.plan, candidate.speed
    found: dict[str, Any] = {
        "instance": instance.name,
        "gpu": instance.gpu.name,
        "num_gpus": instance.num_gpus,
        "quantization": candidate.quantization,
        "tensor_parallel_size": candidate.num_ranks,
        "data_parallel_size": candidate.num_replicas,
        "fits": plan is not None and plan.fits,
        "reasons": list(candidate.reasons),
        "price_per_hour": instance.price_per_hour,
        "price_as_of": instance.price_as_of,
        "price_source": instance.price_source,
        "per_gpu": None if plan is None else _per_gpu(plan.per_gpu),
        "max_concurrency": None if plan is None else plan.max_concurrency * candidate.num_replicas,
        "ttft_s": _interval(None if speed is None else speed.ttft_s),
        "ttft_at_once_s": _interval(None if speed is None else speed.ttft_at_once_s),
        "tpot_s": _interval(None if speed is None else speed.tpot_s),
        "output_tokens_per_s": _interval(candidate.output_tokens_per_s),
        "usd_per_million_output_tokens": _interval(candidate.usd_per_million_output_tokens),
        "basis": candidate.basis,
    }
    if not candidate.reasons:
        settings, values = settings_of(candidate, request), values_of(candidate, model)
        found |= {"settings": dict(settings), "sagemaker": values.to_json() if instance.name.startswith("ml.") else None}
        found["deploy_command"] = deploy_command(candidate, model, settings, values)
    return found


def _per_gpu(per_gpu: PerGpu) -> dict[str, dict[str, float]]:
    return {name: interval.to_json() for name, interval in vars(per_gpu).items()}


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.to_json()
