import json
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, start_server

pytestmark = [pytest.mark.gpu, pytest.mark.engine]

QUESTION = {"messages": [{"role": "user", "content": "What is the chemical symbol of water?"}], "max_tokens": 24, "temperature": 0}


def answer(url: str) -> str:
    return httpx.post(f"{url}/invocations", json=QUESTION, timeout=120).json()["choices"][0]["message"]["content"]


def test_int8_answers_and_holds_its_linear_layers_in_one_byte_a_weight(int8_server: Server) -> None:
    assert "H2O" in answer(int8_server.url) or "H₂O" in answer(int8_server.url)
    device = httpx.get(f"{int8_server.url}/memory", timeout=30).json()["devices"][0]
    # SmolLM2-135M: 106 million weights in linear layers, 28 million in the embedding, which stays in 16 bit.
    assert device["weights_by_dtype"]["int8"] == pytest.approx(106.2e6, rel=0.01)
    assert device["weights_bytes"] == pytest.approx(163e6, rel=0.02)


def test_the_ledger_of_a_gpu_adds_up_to_what_it_has(int8_server: Server) -> None:
    for device in httpx.get(f"{int8_server.url}/memory", timeout=30).json()["devices"]:
        assert device["device"].startswith("cuda")
        kinds = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free")
        assert sum(device[f"{kind}_bytes"] for kind in kinds) == pytest.approx(device["total_bytes"], rel=0.02)


def test_nine_heads_over_two_gpus_give_the_text_of_one(gpus: int, tmp_path: Path, cache_dir: Path) -> None:
    if gpus < 2:
        pytest.skip("one GPU: padding over two ranks needs two")
    texts = []
    for ranks in ("1", "2"):
        folder = tmp_path / ranks
        folder.mkdir()
        with start_server(folder, cache_dir, TOKENPORT_TENSOR_PARALLEL_SIZE=ranks, TOKENPORT_DTYPE="bfloat16") as server:
            texts.append(answer(server.url))
            assert len(httpx.get(f"{server.url}/memory", timeout=30).json()["devices"]) == int(ranks), json.dumps(texts)
    assert texts[0] == texts[1]
