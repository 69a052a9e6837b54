"""Whether it fits: the verdict, what it leaves room for, what would help, and what cannot be planned at all."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import PlanError
from serving.planner.interval import Interval
from serving.planner.memory.batch_defaults import batch_defaults
from serving.planner.memory.fit import make_plan
from serving.planner.memory.plan_words import no_fit_line
from serving.planner.plan import Plan, PlanRequest
from tests.unit.planner.known_models import GIB, gpu, model

L4, H100 = gpu(22), gpu(79.19)
FIT = PlanRequest(context=8192, concurrency=2)


def plan(name="Llama-3.1-8B", device=L4, num_gpus=1, request=FIT, changes=None, **fields) -> Plan:
    return make_plan(model(name, **(changes or {})), dataclasses.replace(request, **fields), device, num_gpus)


def test_a_plan_that_fits_says_what_it_takes_and_what_there_is_room_for():
    made = plan()
    assert made.fits
    assert made.num_gpus == 1
    assert made.remedies == ()
    assert made.shortfall_bytes == 0
    assert made.request.tensor_parallel_size == 1
    assert made.kv_bytes_per_token == 131072
    assert made.per_gpu.kv_cache_bytes.estimate == (2 * 8192 + 16) * 131072
    assert made.max_concurrency >= 2
    assert made.max_context >= 8192


def test_every_size_is_told_with_what_it_costs():
    by_size = {division.tensor_parallel_size: division for division in plan(changes={"architectures": ["LlamaForCausalLM"]}).divisions}
    assert list(by_size) == list(range(1, 9))
    for size in (1, 2, 4, 8):
        assert (by_size[size].is_padded, by_size[size].added_weights_bytes, by_size[size].added_kv_bytes_per_token) == (False, 0, 0)
    padded = by_size[3]
    assert padded.is_padded
    # 9 KV heads of 4 query heads in the place of 8; 14352 MLP columns in the place of 14336; 16 bits, 32 layers.
    assert padded.added_kv_bytes_per_token == 2 * 128 * 2 * 32
    assert padded.added_weights_bytes == (2 * (4 + 1) * 128 + 3 * (14352 - 14336)) * 4096 * 2 * 32


def test_a_size_that_nothing_can_divide_is_told_with_the_reason():
    refused = {division.tensor_parallel_size: division.refused for division in plan("GPT-2", context=1024).divisions}
    assert refused[4] is None
    assert "12 attention heads" in refused[5]


def test_more_copies_of_kv_heads_than_there_are_cost_kv_cache():
    by_size = {division.tensor_parallel_size: division for division in plan(device=L4, num_gpus=16, tensor_parallel_size=4).divisions}
    assert not by_size[16].is_padded
    assert by_size[16].added_kv_bytes_per_token == 131072


def test_latent_attention_is_on_every_rank_whole_and_a_cache_of_8_bits_costs_half():
    latent = {division.tensor_parallel_size: division for division in plan("DeepSeek-V2-Lite", H100, kv_cache_dtype="fp8").divisions}
    assert latent[1].added_kv_bytes_per_token == 0
    assert latent[4].added_kv_bytes_per_token == 3 * 31_104 / 2


def test_whole_experts_are_divided_by_sizes_that_cut_no_expert():
    """512 columns of an expert are no multiple of 3, and its heads are: only whole experts can be over 3 ranks."""
    heads = {"num_attention_heads": 24, "num_key_value_heads": 12, "moe_intermediate_size": 512}
    cut, whole = (
        {division.tensor_parallel_size for division in made.divisions if division.refused is None}
        for made in (plan("Qwen3-30B-A3B", H100, 8, changes=heads, enable_expert_parallel=is_whole) for is_whole in (False, True))
    )
    assert whole - cut == {3, 6}


def test_whole_experts_that_do_not_fit_are_told_with_what_would_help():
    made = plan("DeepSeek-V3", H100, 2, tensor_parallel_size=2, enable_expert_parallel=True)
    assert not made.fits
    assert made.remedies


def test_what_cuda_and_nccl_may_keep_vllm_from_starting_is_said_and_leaves_the_verdict_open():
    made = plan("SmolLM2-135M", gpu(14.75), 2, context=8192, concurrency=1, tensor_parallel_size=2)
    assert made.fits
    assert not made.is_sure
    assert any("vLLM would not start" in line for line in made.assumed)
    assert made.per_gpu.budget_bytes.estimate == made.per_gpu.usable_bytes.estimate


def test_the_parts_add_up_to_the_total():
    parts = plan().per_gpu
    names = ("weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "cuda_graph_bytes", "non_torch_bytes")
    for end in ("estimate", "low", "high"):
        assert getattr(parts.total_bytes, end) == pytest.approx(sum(getattr(getattr(parts, name), end) for name in names))


def test_the_room_for_tokens_is_what_vllm_measured_less_the_graphs_that_it_counts_now():
    """vLLM 0.19 gave the KV cache of Llama-3.1-8B 58.11 GiB on an H100 at 0.95, before graphs of 0.91 GiB were taken from it."""
    made = plan(device=H100, gpu_memory_utilization=0.95)
    assert made.max_kv_tokens == pytest.approx((58.11 - 0.91) * GIB / 131072, rel=0.01)


def test_without_a_size_the_fewest_gpus_that_surely_hold_the_model_are_taken():
    assert plan("Llama-3.3-70B-fp8-dynamic", H100, 8).num_gpus == 2
    on_three = plan("Llama-3.1-8B", L4, 8, context=32768, concurrency=6, tensor_parallel_size=3)
    assert (on_three.fits, on_three.is_sure) == (True, False)
    assert plan("Llama-3.1-8B", L4, 8, context=32768, concurrency=6).num_gpus == 4


def test_where_none_is_sure_the_fewest_by_the_estimate_are_taken():
    made = plan("Llama-3.1-8B", L4, 3, context=32768, concurrency=6)
    assert (made.fits, made.is_sure) == (True, False)
    assert made.num_gpus == 3  # with zeros: 3 divides no 8 KV heads


def test_a_size_that_is_asked_for_is_kept():
    made = plan("Llama-3.1-8B", L4, 8, tensor_parallel_size=4, data_parallel_size=2)
    assert (made.request.tensor_parallel_size, made.num_gpus) == (4, 8)


def test_replicas_share_the_sequences():
    one, two = plan(num_gpus=1, concurrency=1), plan(num_gpus=2, data_parallel_size=2, concurrency=2)
    assert two.per_gpu == one.per_gpu
    assert two.max_kv_tokens == one.max_kv_tokens
    assert two.max_concurrency == 2 * one.max_concurrency


def test_what_does_not_fit_carries_the_shortfall_and_each_remedy_closes_it():
    made = plan(concurrency=4)
    assert not made.fits
    assert made.shortfall_bytes == made.per_gpu.total_bytes.estimate - made.per_gpu.budget_bytes.estimate > 0
    assert [next(iter(remedy.settings)) for remedy in made.remedies] == [
        "quantization",
        "kv_cache_dtype",
        "max_model_len",
        "tensor_parallel_size",
    ]
    for remedy in made.remedies:
        changed = {("context" if name == "max_model_len" else name): value for name, value in remedy.settings.items()}
        assert plan(concurrency=4, num_gpus=8, **{"tensor_parallel_size": 1} | changed).fits


def test_the_shorter_context_is_the_longest_that_fits():
    made = plan(concurrency=4)
    longest = made.max_context
    assert plan(concurrency=4, context=longest).fits
    assert not plan(concurrency=4, context=longest + 16).fits


def test_two_remedies_are_named_together_where_neither_does_alone():
    made = plan(concurrency=14)
    assert made.remedies[0].settings == {"quantization": "int8", "kv_cache_dtype": "fp8"}


def test_remedies_that_the_hardware_or_the_checkpoint_rules_out_are_not_named():
    without_fp8 = make_plan(model("Llama-3.1-8B"), dataclasses.replace(FIT, concurrency=4), gpu(22, rates=("float16", "int8")), 1)
    assert all("kv_cache_dtype" not in remedy.settings for remedy in without_fp8.remedies)
    quantised = plan("Llama-3.3-70B-fp8-dynamic", H100, 1)
    assert not quantised.fits
    assert all("quantization" not in remedy.settings for remedy in quantised.remedies)


def test_a_sequence_too_many_is_what_max_concurrency_says():
    made = plan(device=H100, context=8192)
    assert plan(device=H100, concurrency=made.max_concurrency).fits
    assert not plan(device=H100, concurrency=made.max_concurrency + 1).fits


def test_a_verdict_that_the_intervals_leave_open_is_not_sure():
    assert plan(device=H100).is_sure
    close = plan(device=gpu(22, usable=Interval(22 * GIB, 18 * GIB, 24 * GIB)))
    assert close.fits
    assert not close.is_sure


def test_no_fit_says_the_parts_the_shortfall_and_the_remedies_in_one_line():
    line = no_fit_line(plan(concurrency=4))
    assert "the model does not fit: on the GPU it needs 21.1 GiB (15.0 weights, 4.0 KV cache" in line
    assert (
        "for 4 sequences of 8192 tokens, may take 20.8 GiB, lacks 0.3; what would do: quantization=int8; or kv_cache_dtype=fp8; or" in line
    )
    assert "\n" not in line
    assert "on each of 2 GPUs it needs" in no_fit_line(plan("Qwen2.5-72B", L4, 2))


def test_weights_that_leave_no_room_leave_no_context():
    made = plan("Qwen2.5-72B", L4)
    assert (made.max_kv_tokens, made.max_context, made.max_concurrency) == (0, 0, 0)


def test_a_kv_cache_of_a_given_size_is_planned_instead_of_the_concurrency():
    assert plan(kv_cache_memory_bytes=3 * GIB).per_gpu.kv_cache_bytes.estimate == 3 * GIB
    assert plan(kv_cache_memory_bytes=3 * GIB).max_kv_tokens == 3 * GIB // 131072
    assert plan(kv_cache_tokens=10_000).per_gpu.kv_cache_bytes.estimate == (10_000 + 16) * 131072
    assert plan(kv_cache_tokens=10_000).max_kv_tokens == 10_000 + 16


def test_every_value_that_nobody_told_is_listed():
    assumed = "\n".join(plan(request=PlanRequest(), device=H100).assumed)
    assert "context: 131072, the model's own" in assumed
    assert "max_num_batched_tokens: 8192, max_num_seqs: 1024; vLLM's defaults on a GPU" in assumed
    assert "fitted to vllm 0.19.0 on NVIDIA H100 80GB" in assumed
    told = dataclasses.replace(FIT, max_num_batched_tokens=2048, max_num_seqs=64)
    assert "max_num" not in "\n".join(plan(request=told).assumed)


def test_experts_of_a_token_are_read_by_any_of_their_names_and_assumed_where_none_is_there():
    by_name, by_other = ({"num_experts_per_tok": None, name: 8} for name in ("num_experts_per_tok", "moe_k"))
    told, other, missing = (plan("Qwen3-30B-A3B", H100, changes=one) for one in (by_name, by_other, {"num_experts_per_tok": None}))
    assert told == other
    assert missing.per_gpu.activation_peak_bytes.estimate < told.per_gpu.activation_peak_bytes.estimate
    assert "num_experts_per_tok: 1, since config.json has none; activations may be more" in missing.assumed
    assert not any("num_experts_per_tok" in line for line in told.assumed)


def test_ranks_that_were_not_measured_are_said_to_be_and_have_a_wider_interval():
    near, far = (plan(device=H100, tensor_parallel_size=size, num_gpus=8) for size in (4, 8))
    assert not any("not measured" in line for line in near.assumed)
    assert "what is outside torch for 8 ranks in 1 stages: not measured, taken from the nearest that was" in far.assumed
    assert far.per_gpu.non_torch_bytes.low < near.per_gpu.non_torch_bytes.low
    assert far.per_gpu.non_torch_bytes.high > near.per_gpu.non_torch_bytes.high


def test_several_ranks_may_take_as_little_outside_torch_as_one_since_only_nvlink_was_measured():
    one, two = (plan(device=H100, tensor_parallel_size=size, num_gpus=8).per_gpu.non_torch_bytes for size in (1, 2))
    assert two.low == one.low < one.estimate < two.estimate


def test_more_sequences_than_vllm_runs_at_once_raise_its_limit_and_are_said_to():
    made = plan("GPT-2", H100, context=128, concurrency=2000)
    assert made.request.max_num_seqs == 2000
    assert any(line.startswith("max_num_seqs: raised") for line in made.assumed)


def test_a_step_has_a_token_of_each_sequence():
    made = plan("GPT-2", L4, context=128, concurrency=3000)
    assert (made.request.max_num_batched_tokens, made.request.max_num_seqs) == (3000, 3000)
    assert any(line.startswith("max_num_batched_tokens: raised to 3000") for line in made.assumed)


def test_none_is_the_checkpoint_as_it_is():
    assert plan(quantization="none") == plan()


def test_eager_mode_has_no_graphs():
    assert plan(enforce_eager=True).per_gpu.cuda_graph_bytes.estimate == 0


def test_quantisation_of_a_quantised_checkpoint_has_no_effect_and_is_said_to_have_none():
    request = dataclasses.replace(FIT, quantization="int8")
    made = plan("Llama-3.3-70B-fp8-dynamic", H100, 2, request)
    assert made.per_gpu == plan("Llama-3.3-70B-fp8-dynamic", H100, 2).per_gpu
    assert "quantization=int8: without effect, the checkpoint is quantised by compressed-tensors" in made.assumed


def test_another_quantisation_of_a_quantised_checkpoint_is_refused_as_vllm_does():
    with pytest.raises(PlanError, match="quantization=fp8: the checkpoint is quantised by compressed-tensors, and vLLM refuses another"):
        plan("Llama-3.3-70B-fp8-dynamic", H100, 2, quantization="fp8")
    assert plan("Llama-3.1-8B-w4a16", H100, 1, quantization="gptq_marlin").per_gpu == plan("Llama-3.1-8B-w4a16", H100, 1).per_gpu


def test_the_json_has_an_interval_for_each_part():
    told = json.loads(json.dumps(plan(concurrency=4).to_json()))
    assert set(told["per_gpu"]["weights_bytes"]) == {"estimate", "low", "high"}
    assert told["fits"] is False
    assert told["remedies"][0] == {"change": "quantization=int8", "settings": {"quantization": "int8"}}
    assert told["request"]["max_num_seqs"] == 256
    assert isinstance(told["per_gpu"]["total_bytes"]["estimate"], int)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"context": -1}, "context=-1: 1 or more"),
        ({"context": 0}, "context=0: 1 or more"),
        ({"context": 200_000}, "context=200000 is more than the 131072 tokens that the model was made for"),
        ({"concurrency": 0}, "concurrency=0: 1 or more"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size=0: 1 or more"),
        ({"tensor_parallel_size": 16}, "tensor_parallel_size=16 needs 16 GPUs, there are 8"),
        ({"tensor_parallel_size": 4, "data_parallel_size": 3}, "tensor_parallel_size=4 x data_parallel_size=3 needs 12 GPUs, there are 8"),
        ({"pipeline_parallel_size": 33}, "pipeline_parallel_size=33 is more than the model's 32 layers"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization=0: more than 0"),
        (
            {"gpu_memory_utilization": 1.0},
            r"gpu_memory_utilization=1: vLLM does not start, since CUDA and NCCL take 0.5 GiB .*; 0.97 at most",
        ),
        ({"dtype": "bfloat61"}, "dtype='bfloat61' is not known .nearest: bfloat16"),
        ({"dtype": "float32", "quantization": "int8"}, "dtype=float32 and quantization=int8: INT8 kernels answer in 16 bits"),
        ({"quantization": "int9"}, "quantization='int9' is not known .nearest: int8"),
        ({"quantization": "INT8"}, "quantization='INT8' is not known .nearest: int8"),
        ({"kv_cache_dtype": "FLOAT61"}, "kv_cache_dtype='FLOAT61' is not planned .nearest: float16"),
        ({"max_num_seqs": 1}, "max_num_seqs=1 lets no 2 sequences run at once; 2 or more"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "max_num_batched_tokens=32 is less than the 64 sequences of a step"),
        ({"enable_expert_parallel": True}, "enable_expert_parallel is for mixtures of experts"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(fields, told):
    with pytest.raises(PlanError, match=told) as caught:
        plan(num_gpus=8, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        (
            "gemma-2-9b",
            3,
            "it has 16 attention heads, 8 KV heads and an MLP of 14336; sizes that can: 1, 2, 4, 8, 16; zeros cannot fill it up",
        ),
        ("DeepSeek-V2-Lite", 3, "it has 16 attention heads and experts of 1408; sizes that can: 1, 2, 4, 8, 16"),
    ],
)
def test_sizes_that_vllm_would_refuse_are_refused_with_those_that_do(name, size, told):
    with pytest.raises(PlanError, match=told):
        plan(name, H100, 8, tensor_parallel_size=size)
    assert plan("Llama-3.1-8B", H100, 8, tensor_parallel_size=3).fits  # our padding knows Llama


@pytest.mark.parametrize(
    ("name", "gib", "context", "settled"),
    [
        ("L4", 22, 8192, (2048, 256)),
        ("A100", 79, 8192, (2048, 256)),
        ("H100", 79, 8192, (8192, 1024)),
        ("B200", 178, 8192, (16384, 1024)),
        ("L4", 22, 4, (1024, 256)),
    ],
)
def test_the_size_of_a_step_is_vllms_for_the_gpu(name, gib, context, settled):
    device = dataclasses.replace(gpu(gib), name=name)
    assert batch_defaults(device, context, num_batched_tokens=None, num_seqs=None) == settled
    assert batch_defaults(device, context, num_batched_tokens=100, num_seqs=None) == (100, 100)
    assert batch_defaults(device, context, num_batched_tokens=None, num_seqs=8) == (min(settled[0], 8 * context), 8)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["Llama-3.1-8B", "Qwen2.5-7B", "gemma-2-9b", "DeepSeek-V2-Lite", "Qwen3-30B-A3B", "gpt-oss-20b"]),
    gib=st.floats(10, 180),
    context=st.integers(1, 8192),
    concurrency=st.integers(1, 256),
    num_gpus=st.integers(1, 8),
    quantization=st.sampled_from([None, "int8", "bitsandbytes"]),
)
def test_a_plan_agrees_with_itself(name, gib, context, concurrency, num_gpus, quantization):
    request = PlanRequest(context=context, concurrency=concurrency, quantization=quantization)
    try:
        made = make_plan(model(name), request, gpu(gib), num_gpus)
    except PlanError:
        return
    for part in dataclasses.astuple(made.per_gpu):
        assert part[1] <= part[0] <= part[2]
        assert math.isfinite(part[2])
    assert made.fits == (made.max_context >= context) == (made.max_concurrency >= concurrency)
    assert made.fits == (made.shortfall_bytes == 0)
    assert made.num_gpus <= num_gpus
