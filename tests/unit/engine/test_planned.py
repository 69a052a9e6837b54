"""The plan of an engine that is being started: from what vLLM settled on, the model's files and a device that is only a number."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.engine.devices import as_cpu, as_gpu
from serving.engine.kv_cache_size import wish_config
from serving.engine.model_to_plan import surprises_as_plan_errors
from serving.engine.planned import planned
from serving.errors import PlanError
from tests.unit.planner.known_models import CONFIGS

GIB = 2**30
SMOLLM2 = CONFIGS["SmolLM2-135M"] | {"architectures": ["LlamaForCausalLM"]}
KV_BYTES_PER_TOKEN = 2 * 3 * 64 * 30 * 2


def config(num_ranks: int = 1, wish: dict | None = None, **changes) -> SimpleNamespace:
    """As much of vLLM's as a plan is made of."""
    parallel = {"tensor_parallel_size": num_ranks, "pipeline_parallel_size": 1, "data_parallel_size": 1, "world_size": num_ranks}
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=2048, dtype="torch.bfloat16", enforce_eager=True),
        cache_config=SimpleNamespace(cache_dtype="auto", gpu_memory_utilization=0.5, kv_cache_memory_bytes=changes.get("kv_cache_bytes")),
        parallel_config=SimpleNamespace(**parallel, enable_expert_parallel=False),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=2048, max_num_seqs=64),
        additional_config=wish or {},
        lora_config=changes.get("lora"),
        speculative_config=None,
    )


@pytest.fixture
def model(tmp_path: Path):
    """Writes a model's config.json."""

    def write(**changes) -> str:
        (tmp_path / "config.json").write_text(json.dumps(SMOLLM2 | changes))
        return str(tmp_path)

    return write


def test_on_a_cpu_there_are_no_graphs_and_the_vocabulary_is_packed_twice_more(model):
    found = planned(config(), model(), {}, [as_cpu(24 * GIB)])
    assert found.reason is None
    assert found.kv_bytes_per_token == KV_BYTES_PER_TOKEN
    assert found.parts["weights"].estimate == pytest.approx(270_079_312, rel=0.001)  # what the ledger measured of it
    assert found.parts["cuda_graph"].high == 0
    assert found.parts["non_torch"].low > 2 * 49152 * 576 * 2


def test_without_a_size_of_its_own_the_kv_cache_is_what_the_others_leave_of_the_share(model):
    parts = planned(config(), model(), {}, [as_cpu(24 * GIB)]).parts
    others = [parts[name] for name in ("weights", "activation_peak", "cuda_graph", "non_torch")]
    assert parts["kv_cache"].estimate == pytest.approx(12 * GIB - sum(part.estimate for part in others))
    assert parts["kv_cache"].low == pytest.approx(12 * GIB - sum(part.high for part in others))


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [({"wish": wish_config(20480, None)}, 20480 + 128), ({"wish": wish_config(None, 3)}, 3 * 2048 + 128)],
)
def test_a_kv_cache_of_a_wished_size_has_that_and_the_block_that_vllm_keeps(model, settings, tokens):
    kv_cache = planned(config(**settings), model(), {}, [as_cpu(24 * GIB)]).parts["kv_cache"]
    assert kv_cache.low == kv_cache.high == tokens * KV_BYTES_PER_TOKEN


def test_a_kv_cache_given_in_bytes_has_those(model):
    assert planned(config(kv_cache_bytes=GIB), model(), {}, [as_cpu(24 * GIB)]).parts["kv_cache"].estimate == GIB


def test_padding_is_planned_and_not_read_from_what_vllm_was_told(model):
    found = planned(config(num_ranks=2), model(), {"tensor_parallel_size": 2}, [as_gpu("NVIDIA L4", 22 * GIB)])
    assert found.kv_bytes_per_token == KV_BYTES_PER_TOKEN * 4 // 3


def test_int8_is_what_the_user_asked_for(model):
    whole, int8 = (planned(config(), model(), {"quantization": name}, [as_cpu(24 * GIB)]).parts["weights"] for name in (None, "int8"))
    assert int8.estimate < 0.65 * whole.estimate


def test_what_is_left_out_of_the_plan_is_said(model):
    assert "the places of LoRA adapters: not planned" in planned(config(lora=object()), model(), {}, [as_cpu(24 * GIB)]).assumed


@pytest.mark.parametrize(
    ("changes", "devices", "reason"),
    [
        ({"model_type": "brand_new"}, [as_cpu(24 * GIB)], "not an architecture that is known here"),
        ({"rope_scaling": ["of", "a", "new", "kind"]}, [as_cpu(24 * GIB)], "rope_scaling=['of', 'a', 'new', 'kind'] is no mapping"),
        ({}, [], "no device of the engine can be seen"),
    ],
)
def test_what_cannot_be_planned_says_why(model, changes, devices, reason):
    found = planned(config(), model(**changes), {}, devices)
    assert reason in found.reason
    assert (found.parts, found.kv_bytes_per_token) == ({}, None)


def test_a_surprise_while_planning_is_a_reason_and_keeps_no_server_from_starting():
    with pytest.raises(PlanError, match="something that the planner does not understand"), surprises_as_plan_errors():
        {}["of a new kind"]
