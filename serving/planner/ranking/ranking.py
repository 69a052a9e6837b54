"""Every instance with every precision and every way to share its GPUs, held against a target and ranked by what a million tokens cost.

An instance carries as many replicas of the model as its GPUs allow; each takes its part of the requests. A candidate that does not keep the
target is kept with the reasons. Compared are the estimates; how wide they are is told with each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serving.errors import PlanError
from serving.planner.hardware import Gpu, Instance
from serving.planner.memory.fit import best_plan
from serving.planner.model import Model
from serving.planner.plan import AS_IT_IS, Plan, PlanRequest
from serving.planner.ranking.operation import NO_PRICE, Estimator, Operation, Service, Target
from serving.planner.speed.calibration import Measured
from serving.planner.speed.efficiency import Efficiency

_GIB = 2**30


@dataclass(frozen=True)
class Candidate:
    """One way to serve the model. `quantization` None for what the checkpoint is. `plan` is of one replica, None where there is none;
    `service` None where it cannot be timed; `operation` at the target's load, None where that does not fit. No `reasons`: it keeps the
    target."""

    instance: Instance
    quantization: str | None
    num_ranks: int
    num_replicas: int
    reasons: tuple[str, ...]
    plan: Plan | None = None
    service: Service | None = None
    operation: Operation | None = None


@dataclass(frozen=True)
class Ranking:
    """`winners` keep the target, the cheapest a token first. `losers`: of each instance without one the candidate that came nearest."""

    target: Target
    winners: tuple[Candidate, ...]
    losers: tuple[Candidate, ...]

    @property
    def first(self) -> Candidate | None:
        """The cheapest winner, or, where nothing keeps the target, the nearest loser that could be planned."""
        return next((one for one in (*self.winners, *self.losers) if one.plan is not None), None)

    @property
    def first_by_concurrency(self) -> list[Operation]:
        """What the first does with other numbers of requests at once; empty where it does not hold one."""
        service = None if self.first is None else self.first.service
        return [] if service is None else service.by_concurrency(self.target)


class Ranker:
    """Holds one model against many machines; what two instances with the same GPU have in common is computed once."""

    def __init__(
        self, model: Model, request: PlanRequest, target: Target, efficiency: Efficiency, measured: Sequence[Measured] = ()
    ) -> None:
        self._model = model
        self._is_held = request.quantization is not None
        self._request = replace(request, quantization=None) if request.quantization == AS_IT_IS else request
        self._target = target
        self.estimator = Estimator(model, efficiency, measured)
        self._plans: dict[PlanRequest, dict[str, Plan | str]] = {}

    def rank(self, instances: Sequence[Instance]) -> Ranking:
        """All of them.

        Raises:
            PlanError: what was asked for is refused on every one of them for the same reason.
        """
        by_instance = [list(self._candidates(instance)) for instance in instances]
        _check_is_timed([one for candidates in by_instance for one in candidates])
        winners = [one for candidates in by_instance for one in candidates if not one.reasons]
        losers = [min(candidates, key=self._distance) for candidates in by_instance if all(one.reasons for one in candidates)]
        return Ranking(self._target, tuple(sorted(winners, key=_cost)), tuple(sorted(losers, key=self._distance)))

    def _candidates(self, instance: Instance) -> Iterator[Candidate]:
        if instance.unsupported is not None:
            yield Candidate(instance, self._request.quantization, 1, 1, (f"unsupported: {instance.unsupported}",))
            return
        for num_ranks in self._sizes(instance.num_gpus):
            for quantization in self._precisions(instance.gpu):
                yield self._candidate(instance, quantization, num_ranks)

    def _sizes(self, num_gpus: int) -> list[int]:
        """Of tensor parallelism: those that leave no GPU of the instance idle, or the one that was asked for."""
        asked = self._request.tensor_parallel_size
        return [asked] if asked is not None else [size for size in range(1, num_gpus + 1) if num_gpus % size == 0]

    def _precisions(self, gpu: Gpu) -> list[str | None]:
        """What was asked for; of floats also what the GPU computes in 8 bits."""
        if self._is_held or self._model.checkpoint_method is not None:
            return [self._request.quantization]
        return [None, *(name for name, rate in (("int8", "int8"), ("fp8", "float8")) if rate in gpu.flops_per_s)]

    def _candidate(self, instance: Instance, quantization: str | None, num_ranks: int) -> Candidate:
        num_replicas = instance.num_gpus // num_ranks
        bare = Candidate(instance, quantization, num_ranks, num_replicas, ())
        if num_replicas == 0:
            return replace(bare, reasons=(f"has {instance.num_gpus} of the {num_ranks} GPUs asked for",))
        concurrency = math.ceil(self._target.flow.concurrency / num_replicas)
        request = replace(self._request, quantization=quantization, tensor_parallel_size=num_ranks, concurrency=concurrency)
        plan = self._plan(request, instance.gpu, num_ranks)
        if isinstance(plan, str):
            return replace(bare, reasons=(plan,))
        return self._timed(bare, plan)

    def _plan(self, request: PlanRequest, gpu: Gpu, num_ranks: int) -> Plan | str:
        """The plan, or why there can be none."""
        plans = self._plans.setdefault(request, {})
        if gpu.name not in plans:
            try:
                plans[gpu.name] = best_plan(self._model, request, gpu, num_ranks)
            except PlanError as error:
                plans[gpu.name] = str(error)
        return plans[gpu.name]

    def _timed(self, candidate: Candidate, plan: Plan) -> Candidate:
        num_replicas = candidate.num_replicas
        try:
            service = self.estimator.service(plan, candidate.instance, num_replicas, plan.max_concurrency * num_replicas)
        except PlanError as error:
            return replace(candidate, plan=plan, reasons=(str(error),))
        if not plan.fits:
            reason = f"does not fit: {plan.shortfall_bytes / _GIB:.1f} GiB short on each GPU"
            return replace(candidate, plan=plan, service=service, reasons=(reason,))
        operation = service.at(self._target.flow.concurrency, self._target)
        unpriced = () if candidate.instance.price_per_hour is not None else (NO_PRICE,)
        reasons = tuple(dict.fromkeys((*operation.reasons, *unpriced)))
        return replace(candidate, plan=plan, service=service, operation=operation, reasons=reasons)

    def _distance(self, candidate: Candidate) -> tuple[bool, float, int, float, float, float, str]:
        """The nearest first: what could be timed, else what lacks least; by the number of reasons, by how far it is over a limit, by cost,
        and where that is not known by speed."""
        operation = candidate.operation
        shortfall = math.inf if candidate.plan is None else candidate.plan.shortfall_bytes
        excess, rate = (operation.excess(self._target), operation.output_tokens_per_s.estimate) if operation else (math.inf, 0.0)
        return operation is None, shortfall, len(candidate.reasons), excess, _cost(candidate), -rate, candidate.instance.name


def _check_is_timed(candidates: Sequence[Candidate]) -> None:
    """A reason that all machines have in common is a fault of the request or the model, and no reason of theirs."""
    tried = [one for one in candidates if one.instance.unsupported is None and one.num_replicas]
    if tried and all(one.service is None and one.reasons == tried[0].reasons for one in tried):
        raise PlanError(tried[0].reasons[0])


def _cost(candidate: Candidate) -> float:
    found = None if candidate.operation is None else candidate.operation.usd_per_million_output_tokens
    return math.inf if found is None else found.estimate
