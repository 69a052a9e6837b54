"""The roofline: never faster than the hardware, never slower for being better."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.planner.instances import find_gpu, load_hardware
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow, ServedModel, estimate_speed
from serving.planner.speed.work_per_token import WorkPerToken

LLAMA_8B = WorkPerToken(num_linear=6_979_321_856, num_vocabulary=128256 * 4096, attention_flops=4 * 32 * 32 * 128)
"""32 layers of 4096, 32 heads of 128, 8 KV heads, an MLP of 14336, 128256 tokens."""
READ_BYTES = 2 * (LLAMA_8B.num_linear + LLAMA_8B.num_vocabulary)
EFFICIENCY = published_efficiency()
HARDWARE = load_hardware()

flows = st.builds(Flow, st.integers(1, 20000), st.integers(1, 4000), st.integers(1, 200))


def served(gpu_name="L4", /, **changes):
    model = ServedModel(LLAMA_8B, 32, 8192, READ_BYTES, 131072, "float16", find_gpu(gpu_name, HARDWARE), 1, None)
    return replace(model, **changes)


def speed(flow, **changes):
    return estimate_speed(served(**changes), flow, EFFICIENCY)


def split(num_ranks, link="nvlink"):
    return served("A100-80GB", num_ranks=num_ranks, link=link)


def test_one_stream_of_8b_in_16_bits_on_an_l4_stays_below_its_physical_bound():
    # 300 GB/s by the 15.0 GB that a step reads.
    assert round(READ_BYTES / 1e9, 1) == 15.0
    rate = speed(Flow(10, 200, 1)).output_tokens_per_s
    assert 8 < rate.estimate <= rate.high <= 20


def test_half_the_bytes_are_at_most_twice_as_fast():
    flow = Flow(10, 200, 1)
    in_16, in_8 = speed(flow), speed(flow, weights_read_bytes=8.03e9, precision="int8")
    assert 1.5 < in_16.tpot_s.estimate / in_8.tpot_s.estimate < 2
    assert in_8.output_tokens_per_s.high < 300 / 8.03


@pytest.mark.parametrize(
    ("model", "tokens_per_s"),
    [(split(1, None), 93.89), (split(2), 149.1), (split(4), 217.2), (split(8), 276.0), (served("A100-40GB"), 75)],
    ids=["A100", "A100 x 2", "A100 x 4", "A100 x 8", "A100-40GB in vLLM"],
)
def test_published_single_streams_lie_within_the_interval(model, tokens_per_s):
    """gpt-fast's README and johnmusgrave.com, of which the shares are."""
    tpot = estimate_speed(model, Flow(5, 200, 1), EFFICIENCY).tpot_s
    assert tpot.low < 1 / tokens_per_s < tpot.high
    assert 1 / tpot.estimate == pytest.approx(tokens_per_s, rel=0.4)


@pytest.mark.parametrize(("concurrency", "tokens_per_s"), [(4, 210), (8, 377), (16, 644), (32, 975), (48, 1190)])
def test_a_published_sweep_that_nothing_was_fitted_to_lies_within_the_interval(concurrency, tokens_per_s):
    """Mistral 7B v0.3 in vLLM on an RTX 4090, 256 input and 128 output tokens: https://mushfiqrahman.dev/?p=1668."""
    work = WorkPerToken(num_linear=32 * 4096 * (2 * (32 + 8) * 128 + 3 * 14336), num_vocabulary=32768 * 4096, attention_flops=4 * 32 * 4096)
    gpu = replace(find_gpu("L4", HARDWARE), name="RTX 4090", bandwidth_bytes_per_s=1008e9, flops_per_s={"float16": 165e12})
    model = served(work=work, weights_read_bytes=2 * (work.num_linear + work.num_vocabulary), gpu=gpu)
    rate = estimate_speed(model, Flow(256, 128, concurrency), EFFICIENCY).output_tokens_per_s
    assert rate.low < tokens_per_s < rate.high
    assert rate.estimate == pytest.approx(tokens_per_s, rel=0.3)


@given(flows)
@settings(max_examples=50, deadline=None)
def test_the_ends_enclose_the_estimate(flow):
    for interval in vars(speed(flow)).values():
        assert interval.low <= interval.estimate <= interval.high


@given(flows, st.floats(1, 10))
@settings(max_examples=50, deadline=None)
def test_more_bandwidth_is_never_slower(flow, factor):
    gpu = find_gpu("L4", HARDWARE)
    faster = replace(gpu, bandwidth_bytes_per_s=gpu.bandwidth_bytes_per_s * factor)
    before, after = speed(flow), speed(flow, gpu=faster)
    assert after.tpot_s.estimate <= before.tpot_s.estimate
    assert after.ttft_s.estimate <= before.ttft_s.estimate
    assert after.output_tokens_per_s.estimate >= before.output_tokens_per_s.estimate


@given(flows)
@settings(max_examples=50, deadline=None)
def test_no_more_requests_are_under_way_than_there_are_places(flow):
    """Little's law, by which the places are the requests a second times the seconds of a request; a little longer at low load."""
    found = speed(flow)
    requests_per_s = found.output_tokens_per_s.estimate / flow.output_tokens
    request_s = found.ttft_s.estimate + (flow.output_tokens - 1) * found.tpot_s.estimate
    assert flow.concurrency * 0.999 <= requests_per_s * request_s
    if flow.output_tokens == 1:
        assert requests_per_s * request_s == pytest.approx(flow.concurrency)


@given(flows, st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_more_requests_at_once_never_make_one_of_them_faster(flow, more):
    before, after = speed(flow), speed(replace(flow, concurrency=flow.concurrency + more))
    assert after.tpot_s.estimate >= before.tpot_s.estimate
    assert after.ttft_s.estimate >= before.ttft_s.estimate
    assert after.output_tokens_per_s.estimate >= 0.999 * before.output_tokens_per_s.estimate


@given(flows, st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_longer_prompts_take_longer(flow, more):
    before, after = speed(flow), speed(replace(flow, input_tokens=flow.input_tokens + more))
    assert after.ttft_s.estimate >= before.ttft_s.estimate
    assert after.tpot_s.estimate >= before.tpot_s.estimate


def test_a_slower_link_costs_time_and_one_gpu_needs_none():
    flow = Flow(1000, 200, 16)
    assert estimate_speed(split(4, "pcie"), flow, EFFICIENCY).tpot_s.estimate > estimate_speed(split(4), flow, EFFICIENCY).tpot_s.estimate
    assert estimate_speed(split(1, "pcie"), flow, EFFICIENCY) == estimate_speed(split(1, None), flow, EFFICIENCY)


def test_others_prompts_are_computed_between_the_steps():
    alone, among = speed(Flow(2000, 200, 1)), speed(Flow(2000, 200, 32))
    assert among.tpot_s.estimate > 2 * alone.tpot_s.estimate
    assert among.ttft_at_once_s.estimate > 20 * alone.ttft_s.estimate


def test_of_a_mixture_a_step_reads_the_experts_that_its_tokens_choose():
    mixture = WorkPerToken(3_000_000_000, 128256 * 4096, 4 * 32 * 32 * 128, num_experts=8, num_chosen=2)
    assert mixture.share_of_experts(1) == 1 / 4
    assert mixture.share_of_experts(1) < mixture.share_of_experts(4) < mixture.share_of_experts(100) <= 1
    alone = speed(Flow(1, 200, 1), work=mixture, weights_read_bytes=2e9, experts_bytes=16e9)
    assert alone == speed(Flow(1, 200, 1), work=mixture, weights_read_bytes=2e9 + 16e9 / 4)
    together = speed(Flow(1, 200, 64), work=mixture, weights_read_bytes=2e9, experts_bytes=16e9)
    assert together.tpot_s.estimate > 2 * alone.tpot_s.estimate


def test_decoding_and_prefill_count_two_flops_a_weight_and_attention_over_the_context():
    work = WorkPerToken(num_linear=10, num_vocabulary=5, attention_flops=3)
    assert work.decode_flops(7) == 2 * 15 + 3 * 7
    assert work.prefill_flops(4) == 2 * 10 * 4 + 2 * 5 + 3 * 8
    assert work.prefill_flops(4, 2) == 2 * 10 * 2 + 2 * 5 + 3 * 6
    assert replace(work, prompt_attention_flops=2).prefill_flops(4) == 2 * 10 * 4 + 2 * 5 + 2 * 8
