"""Every instance with every precision and every way to share its GPUs, held against a target and ranked by what a million tokens cost.

An instance carries as many replicas of the model as its GPUs allow; each takes its part of the requests. A candidate that does not keep the
target is kept with the reasons. Compared are the estimates; how wide they are is told with each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serving.errors import PlanError
from serving.planner.hardware import Gpu, Instance, Link
from serving.planner.interval import Interval
from serving.planner.memory.fit import best_plan
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.plan import AS_IT_IS, Plan, PlanRequest
from serving.planner.speed.calibration import Measured, calibrated
from serving.planner.speed.decoder_work import computed_in, work_of
from serving.planner.speed.efficiency import Efficiency
from serving.planner.speed.speed import Flow, ServedModel, Speed, estimate_speed

_GIB = 2**30
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Target:
    """What is to be kept at `flow`: mean seconds, dollars an hour; None for no limit."""

    flow: Flow
    ttft_s: float | None = None
    tpot_s: float | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One way to serve the model. `quantization` None for what the checkpoint is. `plan` and `speed` are of one replica, None where there
    is none; `output_tokens_per_s` and `usd_per_million_output_tokens` of the whole instance. No `reasons`: it keeps the target. `basis`:
    what the speed stands on."""

    instance: Instance
    quantization: str | None
    num_ranks: int
    num_replicas: int
    reasons: tuple[str, ...]
    plan: Plan | None = None
    speed: Speed | None = None
    output_tokens_per_s: Interval | None = None
    usd_per_million_output_tokens: Interval | None = None
    basis: str = ""


@dataclass(frozen=True)
class Ranking:
    """`winners` keep the target, the cheapest a token first. `losers`: of each instance without one the candidate that came nearest."""

    target: Target
    winners: tuple[Candidate, ...]
    losers: tuple[Candidate, ...]


class Ranker:
    """Holds one model against many machines; what two instances with the same GPU have in common is computed once."""

    def __init__(
        self, model: Model, request: PlanRequest, target: Target, efficiency: Efficiency, measured: Sequence[Measured] = ()
    ) -> None:
        self._model = model
        self._is_held = request.quantization is not None
        self._request = replace(request, quantization=None) if request.quantization == AS_IT_IS else request
        self._target = target
        self._efficiency = efficiency
        self._measured = measured
        self._work = work_of(model.decoder, model.tensors)
        self._plans: dict[PlanRequest, dict[str, Plan | str]] = {}

    def rank(self, instances: Sequence[Instance]) -> Ranking:
        """All of them."""
        by_instance = [list(self._candidates(instance)) for instance in instances]
        winners = [one for candidates in by_instance for one in candidates if not one.reasons]
        losers = [min(candidates, key=_distance) for candidates in by_instance if all(one.reasons for one in candidates)]
        return Ranking(self._target, tuple(sorted(winners, key=_cost)), tuple(sorted(losers, key=_distance)))

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
            return replace(bare, reasons=(f"has {instance.num_gpus} GPUs of the {num_ranks} asked for",))
        concurrency = math.ceil(self._target.flow.concurrency / num_replicas)
        request = replace(self._request, quantization=quantization, tensor_parallel_size=num_ranks, concurrency=concurrency)
        plan = self._plan(request, instance.gpu, num_ranks)
        if isinstance(plan, str):
            return replace(bare, reasons=(plan,))
        if not plan.fits:
            return replace(bare, plan=plan, reasons=(f"does not fit: {plan.shortfall_bytes / _GIB:.1f} GiB short on each GPU",))
        return self._timed(replace(bare, plan=plan), plan, replace(self._target.flow, concurrency=concurrency))

    def _plan(self, request: PlanRequest, gpu: Gpu, num_ranks: int) -> Plan | str:
        """The plan, or why there can be none."""
        plans = self._plans.setdefault(request, {})
        if gpu.name not in plans:
            try:
                plans[gpu.name] = best_plan(self._model, request, gpu, num_ranks)
            except PlanError as error:
                plans[gpu.name] = str(error)
        return plans[gpu.name]

    def _timed(self, candidate: Candidate, plan: Plan, flow: Flow) -> Candidate:
        gpu = candidate.instance.gpu
        served = self._served(plan, gpu, candidate.quantization, candidate.instance.link)
        efficiency = calibrated(self._efficiency, self._measured, gpu, served.precision)
        speed = estimate_speed(served, flow, efficiency)
        rate = speed.output_tokens_per_s.times(candidate.num_replicas)
        return replace(
            candidate,
            speed=speed,
            output_tokens_per_s=rate,
            usd_per_million_output_tokens=_usd_per_million(candidate.instance.price_per_hour, rate),
            reasons=tuple(_reasons(candidate.instance, speed, self._target)),
            basis=efficiency.basis,
        )

    def _served(self, plan: Plan, gpu: Gpu, quantization: str | None, link: Link | None) -> ServedModel:
        shape, num_ranks = self._model.shape, plan.num_gpus
        precision = computed_in(quantization, self._model.config)
        float_bytes = FLOAT_BYTES[plan.request.dtype]
        # Of the input embedding a step reads a row a token; where it is tied, the same matrix is read whole for the logits.
        unread = 0 if shape.has_tied_embeddings else shape.vocab_size * shape.hidden_size * float_bytes
        return ServedModel(
            work=self._work,
            num_layers=shape.num_layers,
            exchanged_bytes=shape.hidden_size * float_bytes,
            weights_read_bytes=plan.per_gpu.weights_bytes.estimate * num_ranks - unread,
            kv_bytes_per_token=plan.kv_bytes_per_token,
            # Where the GPU cannot compute in 8 bits the engine turns the weights back first: Marlin, in vLLM.
            precision=precision if precision in gpu.flops_per_s else "float16",
            gpu=gpu,
            num_ranks=num_ranks,
            link=link if num_ranks > 1 else None,
        )


def _usd_per_million(usd_per_hour: float | None, tokens_per_s: Interval) -> Interval | None:
    if usd_per_hour is None:
        return None
    usd = usd_per_hour / _SECONDS_PER_HOUR * 1e6
    return Interval(usd / tokens_per_s.estimate, usd / tokens_per_s.high, usd / tokens_per_s.low)


def _reasons(instance: Instance, speed: Speed, target: Target) -> Iterator[str]:
    for name, found, limit in (("TTFT", speed.ttft_s, target.ttft_s), ("TPOT", speed.tpot_s, target.tpot_s)):
        if limit is not None and found.estimate > limit:
            yield f"{name} {_seconds(found.estimate)} ({_seconds(found.low)} to {_seconds(found.high)}), over {_seconds(limit)}"
    if instance.price_per_hour is None:
        yield "price unknown: give a table that has it with --prices"
    elif target.usd_per_hour is not None and instance.price_per_hour > target.usd_per_hour:
        yield f"{instance.price_per_hour:g} USD an hour, over the budget of {target.usd_per_hour:g}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _cost(candidate: Candidate) -> float:
    found = candidate.usd_per_million_output_tokens
    return math.inf if found is None else found.estimate


def _distance(candidate: Candidate) -> tuple[bool, float, int, float, float, str]:
    """The nearest first: what could be timed, else what lacks least; by the number of reasons, by cost, and where that is not known by
    speed."""
    shortfall = math.inf if candidate.plan is None else candidate.plan.shortfall_bytes
    rate = candidate.output_tokens_per_s.estimate if candidate.output_tokens_per_s else 0.0
    return candidate.speed is None, shortfall, len(candidate.reasons), _cost(candidate), -rate, candidate.instance.name
