"""One way to serve a model on a machine, with any number of requests at once: latency, throughput, cost, and whether a target is kept.

Requests are shared evenly by the replicas; all are told to be as fast as those of the replica that has the most. Estimates, as `speed.py`
makes them: compared with a target is the middle, not an end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serving.errors import PlanError
from serving.planner.hardware import Instance
from serving.planner.interval import Interval
from serving.planner.memory.fit import best_plan
from serving.planner.model import FLOAT_BYTES, Model
from serving.planner.plan import Plan
from serving.planner.ranking.cells import seconds
from serving.planner.speed.calibration import Measured, calibrated
from serving.planner.speed.decoder_work import computed_in, work_of
from serving.planner.speed.efficiency import Efficiency
from serving.planner.speed.speed import Flow, ServedModel, Speed, estimate_speed

NO_PRICE = "price unknown: give a table that has it with --prices"
SPREAD_EXPERTS = (
    "replicas of a mixture of experts: timed without what they exchange; vLLM divides the experts over all of them "
    "(FusedMoEParallelConfig in vllm/model_executor/layers/fused_moe/config.py)"
)
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Target:
    """What is to be kept at `flow`: mean seconds, dollars an hour; None for no limit."""

    flow: Flow
    ttft_s: float | None = None
    tpot_s: float | None = None
    usd_per_hour: float | None = None

    @property
    def has_limits(self) -> bool:
        """Whether there is anything to be kept."""
        return any(limit is not None for limit in (self.ttft_s, self.tpot_s, self.usd_per_hour))


@dataclass(frozen=True)
class Operation:
    """With `concurrency` requests at once on the whole machine. Rates of all requests together and of one; the cost None where there is no
    price. No `reasons`: it keeps the target."""

    concurrency: int
    speed: Speed
    output_tokens_per_s: Interval
    output_tokens_per_s_per_request: Interval
    usd_per_million_output_tokens: Interval | None
    reasons: tuple[str, ...]

    def excess(self, target: Target) -> float:
        """The latency that is furthest over its limit, by the limit; 1 where none is over."""
        limits = ((self.speed.ttft_s, target.ttft_s), (self.speed.tpot_s, target.tpot_s))
        return max([1.0, *(found.estimate / limit for found, limit in limits if limit is not None)])


@dataclass(frozen=True)
class Service:
    """`num_replicas` of `replica` on `instance`, which hold `max_concurrency` requests at once."""

    instance: Instance
    replica: ServedModel
    num_replicas: int
    max_concurrency: int
    efficiency: Efficiency

    def at(self, concurrency: int, target: Target) -> Operation:
        """With requests of the target's lengths."""
        of_fullest = math.ceil(concurrency / self.num_replicas)
        speed = estimate_speed(self.replica, replace(target.flow, concurrency=of_fullest), self.efficiency)
        of_one = speed.output_tokens_per_s.times(1 / of_fullest)
        together = of_one.times(concurrency)
        return Operation(
            concurrency=concurrency,
            speed=speed,
            output_tokens_per_s=together,
            output_tokens_per_s_per_request=of_one,
            usd_per_million_output_tokens=_usd_per_million(self.instance.price_per_hour, together),
            reasons=tuple(_reasons(self.instance, speed, target)),
        )

    def by_concurrency(self, target: Target) -> list[Operation]:
        """At each power of two that memory and max_num_seqs hold, and at the target's own concurrency if they hold it."""
        powers = {2**power for power in range(self.max_concurrency.bit_length())}
        asked = {target.flow.concurrency} if target.flow.concurrency <= self.max_concurrency else set()
        return [self.at(concurrency, target) for concurrency in sorted(powers | asked)]


class Estimator:
    """The ways to serve one model; what they have in common is computed once."""

    def __init__(self, model: Model, efficiency: Efficiency, measured: Sequence[Measured] = ()) -> None:
        self._model = model
        self._efficiency = efficiency
        self._measured = measured
        self._timed: set[tuple[str, str]] = set()
        self._work = work_of(model.decoder, model.tensors)
        outside = tuple(tensor for tensor in model.tensors if ".experts." not in tensor.name)
        self._without_experts = replace(model, tensors=outside) if self._work.num_experts else None

    def service(self, plan: Plan, instance: Instance, num_replicas: int, max_concurrency: int) -> Service:
        """`num_replicas` of what `plan` divides over tensor parallel ranks.

        Raises:
            PlanError: there is no estimate: it has pipeline stages, or the GPU's rate is not known.
        """
        if plan.request.pipeline_parallel_size > 1:
            raise PlanError("there is no estimate of the speed of pipeline stages")
        replica = self._served(plan, instance)
        self._timed.add((instance.gpu.name, replica.precision))
        efficiency = calibrated(self._efficiency, self._measured, instance.gpu, replica.precision)
        return Service(instance, replica, num_replicas, max_concurrency, efficiency)

    @property
    def without_effect(self) -> list[str]:
        """A line for each measurement that says nothing of what was timed so far."""
        return [
            f"--calibrate {one.file}: without effect, since nothing here computes in {one.precision} on {one.gpu}"
            for one in self._measured
            if (one.gpu, one.precision) not in self._timed
        ]

    def _served(self, plan: Plan, instance: Instance) -> ServedModel:
        shape, request, gpu = self._model.shape, plan.request, instance.gpu
        num_ranks = request.tensor_parallel_size or 1
        if "float16" not in gpu.flops_per_s:
            raise PlanError(f"{gpu.name}: its rate in 16 bits is not known; give it as tflops.float16 in the file for --hardware")
        if request.dtype == "float32":
            raise PlanError("there is no estimate of the speed in 32 bits")
        precision, float_bytes = computed_in(request.quantization, self._model.config), FLOAT_BYTES[request.dtype]
        # Of the input embedding a step reads a row a token; where it is tied, the same matrix is read whole for the logits.
        unread_bytes = 0 if shape.has_tied_embeddings else shape.vocab_size * shape.hidden_size * float_bytes
        weights_bytes = plan.per_gpu.weights_bytes.estimate * num_ranks
        experts_bytes = weights_bytes - self._bytes_outside_experts(plan, instance) * num_ranks
        return ServedModel(
            work=self._work,
            num_layers=shape.num_layers,
            exchanged_bytes=shape.hidden_size * float_bytes,
            weights_read_bytes=weights_bytes - experts_bytes - unread_bytes,
            experts_bytes=experts_bytes,
            kv_bytes_per_token=plan.kv_bytes_per_token,
            # Where the GPU cannot compute in 8 bits the engine turns the weights back first: Marlin, in vLLM.
            precision=precision if precision in gpu.flops_per_s else "float16",
            gpu=gpu,
            num_ranks=num_ranks,
            link=instance.link if num_ranks > 1 else None,
        )

    def _bytes_outside_experts(self, plan: Plan, instance: Instance) -> float:
        """On the fullest rank: planned for the model without its experts, whose weights often have fewer bits than the others."""
        if self._without_experts is None:
            return plan.per_gpu.weights_bytes.estimate
        return best_plan(self._without_experts, plan.request, instance.gpu, plan.num_gpus).per_gpu.weights_bytes.estimate


def _usd_per_million(usd_per_hour: float | None, tokens_per_s: Interval) -> Interval | None:
    if usd_per_hour is None:
        return None
    usd = usd_per_hour / _SECONDS_PER_HOUR * 1e6
    return Interval(usd / tokens_per_s.estimate, usd / tokens_per_s.high, usd / tokens_per_s.low)


def _reasons(instance: Instance, speed: Speed, target: Target) -> Iterator[str]:
    for name, found, limit in (("TTFT", speed.ttft_s, target.ttft_s), ("TPOT", speed.tpot_s, target.tpot_s)):
        if limit is not None and found.estimate > limit:
            yield f"{name} {seconds(found.estimate)} ({seconds(found.low)} to {seconds(found.high)}), over {seconds(limit)}"
    if target.usd_per_hour is None:
        return
    if instance.price_per_hour is None:
        yield NO_PRICE
    elif instance.price_per_hour > target.usd_per_hour:
        yield f"{instance.price_per_hour:g} USD an hour, over the budget of {target.usd_per_hour:g}"
