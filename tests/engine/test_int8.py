"""The real model, loaded with `quantization=int8` in one process, with a LoRA adapter on top."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.process.test_adapters import make_adapter

pytestmark = pytest.mark.engine

DEADLINE_S = 200
NUM_LAYERS, NUM_LINEAR = 30, 4


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict:
    (model,) = (cache_dir / "models").glob("smollm2-135m-instruct-*[0-9]")
    adapter = make_adapter(tmp_path_factory.mktemp("adapters") / "one", 0)
    environ = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    words = [sys.executable, "-m", "tests.engine.int8_facts", str(model), str(adapter)]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_linear_layer_is_in_int8_but_those_ignored(facts):
    ignored = ["model.layers.0.self_attn.o_proj", "model.layers.1.mlp.gate_up_proj"]
    assert facts["kinds"]["UnquantizedLinearMethod"] == ignored
    assert len(facts["kinds"]["Int8LinearMethod"]) == NUM_LAYERS * NUM_LINEAR - len(ignored)
    assert len(facts["kinds"]) == 2


def test_the_embedding_stays_in_16_bits(facts):
    assert facts["embedding"] == "torch.bfloat16"


def test_one_line_says_how_many_layers_and_bytes(facts):
    assert f"{NUM_LAYERS * NUM_LINEAR - 2} layers are in INT8: 208 MB of weights are now 105 MB" in facts["lines"]


def test_a_pattern_that_names_no_layer_is_told(facts):
    assert [line for line in facts["lines"] if "is the name of no layer" in line] == [
        "quantization_config: ignore: 'model.layers.0.mpl' is the name of no layer"
    ]


def test_a_fused_layer_holds_the_rounded_weights_of_its_parts_in_their_order(facts):
    # Half a step of rounding, and what BF16 loses of an answer of up to 127 steps: half of 2 ** -7 of it.
    assert facts["steps"] <= 0.5 + 127.5 * 2**-8


def test_the_model_still_knows_water(facts):
    assert "H2O" in facts["text"]


def test_an_adapter_works_on_top(facts):
    assert facts["adapted"] != facts["text"]


def test_layers_that_cannot_be_quantised_are_left_and_named_with_the_reason(facts):
    assert facts["unfit"]["methods"] == ["LeftAsItIs", "LeftAsItIs", "Int8LinearMethod"]
    assert facts["unfit"]["answers"] == [float("inf"), pytest.approx(8, rel=0.01)]
    assert "2 layers could not be quantised and stay in 16 bits: " in facts["unfit_lines"][1]
    assert "exact (is computed in float32)" in facts["unfit_lines"][1]
    assert "broken (the weight holds values that are no finite numbers)" in facts["unfit_lines"][1]
