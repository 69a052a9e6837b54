"""Seeded requests on the CPU engine, whose prompts are split over steps: what killed vLLM 0.32 (see serving/engine/cpu_changes.py)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.engine


def chat(http, seed: int, question: str = "Write a sentence about the sea.") -> str:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 12, "temperature": 1.0, "seed": seed}
    answer = http.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_64_seeded_streams_at_once(http, server):
    # 64 prompts of some 40 tokens over steps of at most 256: several are cut in two.
    def stream(seed: int) -> str:
        body = {
            "messages": [{"role": "user", "content": f"{seed}: Write a sentence about the sea."}],
            "max_tokens": 12,
            "seed": seed,
            "stream": True,
        }
        answer = http.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        return answer.text

    with ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(stream, range(64)))
    assert all(text.endswith("data: [DONE]\n\n") and '"error"' not in text for text in texts)
    assert http.get("/ping").status_code == 200


def test_a_prompt_longer_than_a_step_keeps_its_seed(http):
    # About 600 tokens: three steps of 256, two of whose samples are thrown away.
    question = "Repeat after me: " + "the quick brown fox jumps over the lazy dog, " * 55
    first, second, other = chat(http, 7, question), chat(http, 7, question), chat(http, 8, question)
    assert first == second
    assert first != other


def test_the_same_seed_gives_the_same_text(http):
    texts = [chat(http, 1234) for _ in range(3)]
    assert len(set(texts)) == 1
    assert len({chat(http, seed) for seed in range(4)}) > 1
