"""A roofline estimate of latency and throughput: what a step must read and compute, by what the GPUs can read and compute.

A step takes the longer of reading (weights, KV cache) and computing, then what the ranks exchange, then the engine's own time. In a steady
flow prompts are computed between the steps of the answers that run, which both wait for. An estimate, never a measurement: it knows no
kernels and no scheduler, only the share of the data sheet that others have reached (`efficiency.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from serving.planner.hardware import Gpu, Link
from serving.planner.interval import Interval
from serving.planner.speed.efficiency import Conditions, Efficiency
from serving.planner.speed.work_per_token import WorkPerToken

_SUMS_A_LAYER = 2
"""All-reduces of a tensor-parallel layer: after attention and after the MLP (Megatron-LM, arXiv 1909.08053)."""


@dataclass(frozen=True)
class Flow:
    """`concurrency` requests at once, always, each of `input_tokens` and `output_tokens`."""

    input_tokens: int
    output_tokens: int
    concurrency: int


@dataclass(frozen=True)
class ServedModel:
    """One replica over `num_ranks` GPUs with `link` between them. Bytes over all ranks: `weights_read_bytes` that every step reads,
    `experts_bytes` of the experts, of which it reads those that are chosen, `kv_bytes_per_token`. `precision`: the rate, by the GPU's
    names, at which linear layers are computed. `exchanged_bytes` a token in one sum over the ranks."""

    work: WorkPerToken
    num_layers: int
    exchanged_bytes: int
    weights_read_bytes: float
    kv_bytes_per_token: float
    precision: str
    gpu: Gpu
    num_ranks: int
    link: Link | None
    experts_bytes: float = 0.0


@dataclass(frozen=True)
class Speed:
    """Means in a steady flow. `ttft_s` to the first token, `tpot_s` for each further one; `ttft_at_once_s` of the last of all requests if
    all of them come in one moment. `output_tokens_per_s` of the replica."""

    ttft_s: Interval
    tpot_s: Interval
    ttft_at_once_s: Interval
    output_tokens_per_s: Interval


def estimate_speed(model: ServedModel, flow: Flow, efficiency: Efficiency) -> Speed:
    """With the expected shares; the ends with all at their best, and all at their worst."""
    expected, best, worst = (_Times.of(model, flow, one) for one in (efficiency.expected, efficiency.best, efficiency.worst))

    def rising(figure: Callable[[_Times], float]) -> Interval:
        return Interval(figure(expected), figure(best), figure(worst))

    rate = Interval(*(times.output_tokens_per_s(flow) for times in (expected, worst, best)))
    return Speed(
        ttft_s=rising(lambda times: times.ttft_s(flow)),
        tpot_s=rising(lambda times: times.tpot_s(flow)),
        ttft_at_once_s=rising(lambda times: flow.concurrency * times.prefill_s + times.step_s),
        output_tokens_per_s=rate,
    )


@dataclass(frozen=True)
class _Times:
    """Seconds of one prompt alone, and of one step in which every request gets a token."""

    prefill_s: float
    step_s: float

    @classmethod
    def of(cls, model: ServedModel, flow: Flow, conditions: Conditions) -> "_Times":
        context = flow.input_tokens + flow.output_tokens / 2
        prompt, batch = flow.input_tokens, flow.concurrency
        decode_linear = 2 * model.work.num_linear * batch
        decode_float = (2 * model.work.num_vocabulary + model.work.attention_flops * context) * batch
        prefill_linear = 2 * model.work.num_linear * prompt
        prefill_float = model.work.prefill_flops(prompt) - prefill_linear
        return cls(
            prefill_s=_pass_s(model, conditions, num_tokens=prompt, kv_tokens=prompt, linear=prefill_linear, in_float=prefill_float),
            step_s=_pass_s(model, conditions, num_tokens=batch, kv_tokens=batch * context, linear=decode_linear, in_float=decode_float),
        )

    def tpot_s(self, flow: Flow) -> float:
        """While an answer runs each of the other places brings one prompt, whose computing its steps wait for."""
        return self.step_s + (flow.concurrency - 1) * self.prefill_s / flow.output_tokens

    def ttft_s(self, flow: Flow) -> float:
        """Its own prompt, the step that runs when it comes, and half of another prompt: what is left of one on average if the GPUs were
        always at one of the others' (less at less load, so rather too long). Where answers are short, prompts queue: then it is what is
        left of a request's time, by Little's law, when its other tokens have had theirs."""
        others = flow.concurrency - 1
        return self.prefill_s * (1 + max(others / flow.concurrency / 2, others / flow.output_tokens)) + self.step_s

    def output_tokens_per_s(self, flow: Flow) -> float:
        """The GPUs are busy with prompts and steps in turn."""
        return flow.concurrency * flow.output_tokens / (flow.concurrency * self.prefill_s + flow.output_tokens * self.step_s)


def _pass_s(model: ServedModel, conditions: Conditions, *, num_tokens: float, kv_tokens: float, linear: float, in_float: float) -> float:
    """One pass through the model with `num_tokens` new tokens and `kv_tokens` in the cache; FLOPs by the type they are computed in."""
    gpu, ranks = model.gpu, model.num_ranks
    weights_bytes = model.weights_read_bytes + model.experts_bytes * model.work.share_of_experts(num_tokens)
    read_bytes = weights_bytes + model.kv_bytes_per_token * kv_tokens
    reading_s = read_bytes / ranks / (gpu.bandwidth_bytes_per_s * conditions.bandwidth_share)
    gain = 1.0 if model.precision == "float16" else conditions.eight_bit_gain
    rate, float_rate = gpu.flops_per_s[model.precision] * gain, gpu.flops_per_s["float16"]
    computing_s = (linear / rate + in_float / float_rate) / ranks / conditions.compute_share
    return max(reading_s, computing_s) + _exchange_s(model, conditions, num_tokens) + conditions.step_s


def _exchange_s(model: ServedModel, conditions: Conditions, num_tokens: float) -> float:
    """Sums over the ranks as a ring makes them: each sends 2 (n - 1) / n of the bytes (Patarasu and Yuan, 2009)."""
    if model.link is None or model.num_ranks == 1:
        return 0.0
    sent = 2 * (model.num_ranks - 1) / model.num_ranks * num_tokens * model.exchanged_bytes
    once_s = conditions.all_reduce_s[model.link] + sent / conditions.link_bytes_per_s[model.link]
    return _SUMS_A_LAYER * model.num_layers * once_s
