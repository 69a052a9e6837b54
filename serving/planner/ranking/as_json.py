"""A ranking as plain data, for `tokenport plan --json`."""

from dataclasses import asdict
from typing import Any

from serving.planner.model import Model
from serving.planner.plan import PerGpu, PlanRequest
from serving.planner.ranking.by_concurrency import by_concurrency_json, operation_json
from serving.planner.ranking.deployment import deploy_command, settings_of, values_of
from serving.planner.ranking.operation import Target
from serving.planner.ranking.ranking import Candidate, Ranking

ESTIMATE = (
    "Speeds and costs are estimates from a roofline, not measurements: means in a steady flow, each with the ends it is expected between. "
    "Costs count the instance as busy all the time. Measure with `tokenport bench throughput`, and give the result to --calibrate."
)


def ranking_json(ranking: Ranking, model: Model, request: PlanRequest, assumed: list[str]) -> dict[str, Any]:
    """`winners` and `losers` as in `Ranking`, and the fields of a plan: that of `Ranking.first`, of which `by_concurrency` is too."""
    plan = None if ranking.first is None else ranking.first.plan
    return {
        **(plan.to_json() if plan is not None else {"fits": False}),
        "model": model.name,
        "target": target_json(ranking.target),
        "context": request.context,
        "estimate": ESTIMATE,
        "by_concurrency": by_concurrency_json(ranking.first_by_concurrency),
        "winners": [_candidate(one, model, request) for one in ranking.winners],
        "losers": [_candidate(one, model, request) for one in ranking.losers],
        "assumed": assumed,
    }


def target_json(target: Target) -> dict[str, Any]:
    """The load and the limits, None for no limit."""
    return {**asdict(target.flow), "ttft_s": target.ttft_s, "tpot_s": target.tpot_s, "usd_per_hour": target.usd_per_hour}


def _candidate(candidate: Candidate, model: Model, request: PlanRequest) -> dict[str, Any]:
    instance, plan = candidate.instance, candidate.plan
    found: dict[str, Any] = {
        "instance": instance.name,
        "gpu": instance.gpu.name,
        "num_gpus": instance.num_gpus,
        "link": instance.link,
        "host_memory_bytes": instance.host_memory_bytes,
        "disk_bytes": instance.disk_bytes,
        "note": instance.note,
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
        **operation_json(candidate.operation),
        "basis": candidate.service.efficiency.basis if candidate.service else "",
    }
    if not candidate.reasons:
        settings, values = settings_of(candidate, request), values_of(candidate, model)
        found |= {"settings": dict(settings), "sagemaker": values.to_json() if instance.name.startswith("ml.") else None}
        found["deploy_command"] = deploy_command(candidate, model, settings, values)
    return found


def _per_gpu(per_gpu: PerGpu) -> dict[str, dict[str, float]]:
    return {name: interval.to_json() for name, interval in vars(per_gpu).items()}
