"""MBU and MFU against cases small enough to be worked out by hand."""

import json

import pytest

from benchmarks.measuring.efficiency import Decoding, decoding, efficiency
from benchmarks.measuring.model_work import ModelConfig, ModelWork, config_at, model_work, read_config
from benchmarks.measuring.record import Record
from benchmarks.measuring.window import Window
from serving.errors import BenchmarkError

WHOLE = Window(0.0, 10.0, "given", is_steady=True)
# 2 layers, hidden 8, 2 query heads and 1 KV head of 4, MLP of 16, vocabulary of 100.
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 16,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
NUM_LINEAR = 2 * 8 * (2 * (2 + 1) * 4 + 3 * 16)
NUM_VOCABULARY = 800
LIMITS = {
    "cpu": {
        "bandwidth": {"bytes_per_s": 1e6},
        "rates": {"bfloat16": {"flops_per_s": 1e6}, "int8": {"flops_per_s": 2e6}},
        "unavailable": {},
    },
    "gpus": [{"bandwidth": {"bytes_per_s": 5e6}, "rates": {}, "unavailable": {"bfloat16": "too old"}}],
}


def device(**fields):
    # KV: 2 layers x 1 head x (4 + 4) x 2 bytes = 32 bytes a token.
    return {
        "device": "cpu",
        "weights_bytes": 6000,
        "weights_by_dtype": {"bfloat16": 6000},
        "kv_cache_bytes": 32 * 1000,
        "kv_cache_tokens": 1000,
        **fields,
    }


def model(tmp_path, **fields):
    return ModelConfig({**CONFIG, **fields}, tmp_path)


def work_of(tmp_path, devices=None, config=None, **sizes):
    return model_work({"devices": devices or [device()]}, model(tmp_path, **(config or {})), **sizes)


def stream(start_s, num_tokens, gap_s, prompt_tokens=10, **fields):
    """An answer whose first token comes at `start_s`, then one every `gap_s`."""
    arrivals = [start_s + gap_s * number for number in range(num_tokens)]
    fields = {"cached_tokens": 0, **fields}
    return Record(0, start_s, num_tokens, 0.0, arrivals, [1] * num_tokens, arrivals[-1], prompt_tokens, num_tokens, **fields)


def test_steps_are_one_over_the_time_between_tokens_however_many_answers_run():
    found = decoding([stream(0.0, 101, 0.1), stream(0.0, 101, 0.1)], WHOLE)
    assert found.steps_per_s == pytest.approx(10)
    assert found.tokens_per_s == pytest.approx(20)
    assert found.mean_running == pytest.approx(2)
    # Each context grows from 10 to 111 tokens.
    assert found.kv_tokens_per_step == pytest.approx(2 * (10 + 101 / 2))
    assert found.mean_context == pytest.approx(10 + 101 / 2)


def test_idle_time_has_no_steps_and_shortens_no_context():
    found = decoding([stream(0.0, 51, 0.1)], WHOLE)
    assert found.steps_per_s == pytest.approx(5), "fifty steps in ten seconds"
    assert found.kv_tokens_per_step == pytest.approx(10 + 51 / 2)


def test_only_what_lies_in_the_window_counts():
    found = decoding([stream(0.0, 101, 0.1)], Window(5.0, 10.0, "given", is_steady=True))
    assert found.steps_per_s == pytest.approx(10, rel=0.03)
    assert found.mean_context == pytest.approx(10 + 0.75 * 101), "in the second half, three quarters are done in the mean"


def test_contexts_are_unknown_where_the_server_counts_no_prompt():
    found = decoding([stream(0.0, 11, 0.1), stream(0.0, 11, 0.1, prompt_tokens=None)], WHOLE)
    assert found.steps_per_s is not None
    assert found.kv_tokens_per_step is found.mean_context is None


def test_nothing_decoded_is_no_steps():
    assert decoding([stream(0.0, 1, 0.1)], WHOLE) == Decoding()


def test_bytes_of_a_step_are_all_weights_but_the_input_embedding(tmp_path):
    assert work_of(tmp_path).weights_read_bytes == 6000 - 100 * 8 * 2
    tied = work_of(tmp_path, config={"tie_word_embeddings": True})
    assert tied.weights_read_bytes == 6000, "a tied matrix is read for the logits"
    assert work_of(tmp_path).kv_bytes_per_token == 32


def test_the_embedding_has_the_width_of_the_models_own_floats(tmp_path):
    types = {"int8": 4000, "float32": 100, "float16": 3200}
    found = work_of(tmp_path, [device(weights_bytes=7300, weights_by_dtype=types)])
    assert found.weights_read_bytes == 7300 - 1600
    assert found.precision == "int8"


def test_ranks_add_up_and_replicas_hold_tokens_of_their_own(tmp_path):
    two = [device(device="cuda:0", kv_cache_bytes=16000), device(device="cuda:1", kv_cache_bytes=16000)]
    assert work_of(tmp_path, two).kv_bytes_per_token == 32, "each rank has half of every token"
    assert work_of(tmp_path, two, num_replicas=2).kv_bytes_per_token == 16
    assert work_of(tmp_path, two, num_replicas=2).weights_read_bytes == 12000 - 2 * 1600
    assert work_of(tmp_path, two).num_devices == 2


def test_flops_of_a_token_by_hand(tmp_path):
    work = work_of(tmp_path).flops
    assert (work.num_linear, work.num_vocabulary) == (NUM_LINEAR, NUM_VOCABULARY)
    assert work.attention_flops == 4 * 2 * 2 * 4, "two products of two FLOPs, layers, heads, their width"
    assert work.decode_flops(10) == 2 * (NUM_LINEAR + NUM_VOCABULARY) + 64 * 10
    # Ten tokens, the first four cached: six through the layers, and the pairs (100 - 16) / 2.
    assert work.prefill_flops(10, 4) == 12 * NUM_LINEAR + 2 * NUM_VOCABULARY + 64 * 42


def test_mbu_by_hand(tmp_path):
    found = efficiency([stream(0.0, 101, 0.1), stream(0.0, 101, 0.1)], WHOLE, work_of(tmp_path), LIMITS)
    per_step = 4400 + 32 * 121
    assert found["bytes_per_step"] == pytest.approx(per_step)
    assert found["mbu"] == pytest.approx(per_step * 10 / 1e6)


def test_mfu_by_hand_counts_prompts_that_are_not_cached(tmp_path):
    records = [stream(0.0, 101, 0.1, cached_tokens=4)]
    found = efficiency(records, WHOLE, work_of(tmp_path), LIMITS)
    decode = 10 * (2 * (NUM_LINEAR + NUM_VOCABULARY) + 64 * 60.5)
    prefill = (12 * NUM_LINEAR + 2 * NUM_VOCABULARY + 64 * 42) / 10
    assert found["mfu_decode"] == pytest.approx(decode / 1e6)
    assert found["mfu"] == pytest.approx((decode + prefill) / 1e6)
    assert found["reasons"] == {}


def test_int8_weights_are_held_to_the_rate_of_int8(tmp_path):
    eight = work_of(tmp_path, [device(weights_by_dtype={"bfloat16": 3200, "int8": 2800})])
    records = [stream(0.0, 101, 0.1)]
    assert efficiency(records, WHOLE, eight, LIMITS)["mfu"] == pytest.approx(
        efficiency(records, WHOLE, work_of(tmp_path), LIMITS)["mfu"] / 2
    )


def test_gpus_bring_a_ceiling_each_and_say_what_was_not_measured(tmp_path):
    two = [device(device="cuda:0"), device(device="cuda:1")]
    found = efficiency([stream(0.0, 101, 0.1)], WHOLE, work_of(tmp_path, two), LIMITS)
    assert found["bandwidth_limit_bytes_per_s"] == 1e7
    assert found["mfu"] is None
    assert found["reasons"]["mfu"] == "too old"


def test_unknown_is_null_with_the_reason(tmp_path):
    records = [stream(0.0, 101, 0.1, cached_tokens=None)]
    shared = efficiency(records, WHOLE, work_of(tmp_path), LIMITS)
    assert shared["mfu"] is None
    assert "cache" in shared["reasons"]["mfu"]
    assert shared["mfu_decode"] is not None
    assert efficiency(records, WHOLE, work_of(tmp_path), LIMITS, are_prompts_distinct=True)["mfu"] is not None
    no_shape = efficiency(records, WHOLE, model_work({"devices": [device()]}, None), LIMITS)
    assert no_shape["mbu"] is no_shape["mfu"] is None
    assert "--model-config" in no_shape["reasons"]["mbu"]
    unlimited = efficiency(records, WHOLE, work_of(tmp_path), None)
    assert unlimited["mbu"] is None
    assert unlimited["bytes_per_s"] is not None
    nothing = efficiency([], WHOLE, work_of(tmp_path), LIMITS)
    assert nothing["mbu"] is None
    assert "decoding" in nothing["reasons"]["mbu"]


@pytest.mark.parametrize(
    ("config", "sizes", "word"),
    [
        ({"num_local_experts": 8}, {}, "experts"),
        ({"sliding_window": 32}, {}, "context"),
        ({"layer_types": ["full_attention", "linear_attention"]}, {}, "context"),
        ({"kv_lora_rank": 4}, {}, "latent"),
        ({"vision_config": {}}, {}, "text"),
        ({}, {"num_stages": 2}, "pipeline"),
    ],
)
def test_what_a_step_reads_is_not_guessed_for_unusual_models(tmp_path, config, sizes, word):
    work = work_of(tmp_path, config=config, **sizes)
    assert work.weights_read_bytes is None
    assert word in work.bytes_reason
    assert word in work.reason


def test_a_window_that_is_configured_but_switched_off_hides_nothing(tmp_path):
    assert work_of(tmp_path, config={"sliding_window": 32, "use_sliding_window": False}).bytes_reason is None


def test_weights_of_a_packed_type_have_no_rate(tmp_path):
    work = work_of(tmp_path, [device(weights_by_dtype={"bfloat16": 3200, "uint8": 2800})])
    assert work.precision is None
    assert "uint8" in work.reason
    assert work.weights_read_bytes is not None


def test_no_ledger_is_no_work(tmp_path):
    assert model_work(None, model(tmp_path)) is None
    assert model_work({"devices": []}, model(tmp_path)) is None


def test_the_config_is_found_by_folder_and_by_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read_config(tmp_path).shape == read_config(tmp_path / "config.json").shape
    assert config_at(str(tmp_path)).shape.num_layers == 2
    assert config_at("some/hub-name") is None
    assert config_at(None) is None
    with pytest.raises(BenchmarkError, match="--model-config"):
        read_config(tmp_path / "absent")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BenchmarkError, match=r"not the config\.json"):
        read_config(tmp_path)


def test_a_work_without_bytes_says_why():
    found = efficiency([stream(0.0, 11, 0.1)], WHOLE, ModelWork("cpu", 1, bytes_reason="no bytes", reason="no shape"), LIMITS)
    assert found["reasons"]["mbu"] == "no bytes"
    assert found["reasons"]["mfu"] == "no shape"
