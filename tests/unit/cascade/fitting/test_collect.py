"""Outcome files out of questions, from a server on loopback that answers for its tiers by name."""

import asyncio
import json

import pytest
from aiohttp import web

from serving.cascade.commands import run_cascade
from serving.cascade.fitting.outcomes import read_outcomes
from serving.errors import CascadeError

ANSWERS = {"small": {"1+1": "2", "2+2": "5"}, "large": {"1+1": "2", "2+2": "4"}}
COSTS = {"small": "0.001", "large": "0.02"}


@pytest.fixture
async def server():
    """What came, as `seen`; a question of `breaks` is answered with 502 by the large tier."""
    seen = []

    async def answer(request):
        body = await request.json()
        seen.append((request.headers.get("authorization"), body))
        tier, question = body["model"], body["messages"][-1]["content"]
        if question == "odd":
            return web.json_response({"choices": []}, headers={"x-tokenport-cost": "0"})
        if question == "breaks" and tier == "large":
            return web.json_response({"error": {"message": "not there"}}, status=502)
        choice = {"index": 0, "message": {"content": ANSWERS[tier].get(question, "?")}}
        if body.get("logprobs"):
            top = [{"logprob": -0.1}, {"logprob": -2.5}][: 1 if question == "one alternative" else 2]
            choice["logprobs"] = {"content": [{"logprob": -0.1, "top_logprobs": top}] * 5}
        if question == "other logprobs":
            choice["logprobs"] = {"content": [{"logprob": "high"}]}
        headers = {} if question == "no cost" else {"x-tokenport-cost": "free" if question == "free" else COSTS[tier]}
        return web.json_response({"choices": [choice]}, headers=headers)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}", seen
    await runner.cleanup()


async def collected(server, tmp_path, questions, *more):
    file = tmp_path / "questions.jsonl"
    file.write_text(
        "".join(
            json.dumps({"id": text, "messages": [{"role": "user", "content": text}], "answer": right}) + "\n" for text, right in questions
        )
    )
    words = ["collect", str(file), "--url", server[0], "--tiers", "small,large", "--hold-tokens", "3", "--out", str(tmp_path / "out.jsonl")]
    return await asyncio.to_thread(run_cascade, [*words, *more], {"KEY": "secret"})


async def test_the_file_is_one_that_fit_reads(server, tmp_path):
    assert await collected(server, tmp_path, [("1+1", "2"), ("2+2", "4")]) == 0
    outcomes = read_outcomes(tmp_path / "out.jsonl", ["small", "large"])
    assert outcomes.quality.tolist() == [[1, 1], [0, 1]]
    assert outcomes.cost.tolist() == [[0.001, 0.02]] * 2
    assert outcomes.signals["small"]["num_tokens"].tolist() == [3, 3]
    assert not outcomes.signals["large"]


async def test_log_probabilities_are_asked_of_all_but_the_last_tier(server, tmp_path):
    await collected(server, tmp_path, [("1+1", "2")], "--sampling", '{"temperature": 0.5}', "--api-key-env", "KEY")
    small, large = (body for _, body in server[1])
    assert (small["logprobs"], small["top_logprobs"]) == (True, 2)
    assert "logprobs" not in large
    assert all(body["temperature"] == 0.5 for _, body in server[1])
    assert {key for key, _ in server[1]} == {"Bearer secret"}


async def test_a_question_that_a_tier_did_not_answer_is_left_out_and_told(server, tmp_path, capsys):
    assert await collected(server, tmp_path, [("1+1", "2"), ("breaks", "x")]) == 0
    told = capsys.readouterr()
    assert "1 of 2 questions" in told.out
    assert "1 questions left out; the first: breaks, large: HTTP 502" in told.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("odd", "something else than an OpenAI answer"),
        ("one alternative", "the tier told no log-probabilities"),
        ("other logprobs", "it tells log-probabilities in no known shape"),
        ("free", "could not convert string to float: 'free'"),
    ],
)
async def test_an_answer_in_another_shape_is_a_question_left_out(server, tmp_path, capsys, question, told):
    assert await collected(server, tmp_path, [("1+1", "2"), (question, "x")]) == 0
    assert f"{question}, small: {told}" in capsys.readouterr().err


async def test_one_tier_is_no_cascade(server, tmp_path):
    with pytest.raises(CascadeError, match="--tiers small: name two"):
        await collected(server, tmp_path, [("1+1", "2")], "--tiers", "small")


async def test_answers_that_cannot_be_kept_are_not_asked_for(server, tmp_path):
    with pytest.raises(CascadeError, match="--out /: cannot be written"):
        await collected(server, tmp_path, [("1+1", "2")], "--out", "/")
    assert server[1] == []


async def test_what_an_earlier_run_wrote_is_replaced(server, tmp_path):
    for _ in range(2):
        await collected(server, tmp_path, [("1+1", "2")])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


async def test_a_server_without_a_cascade_is_told(server, tmp_path):
    with pytest.raises(CascadeError, match="no server with a cascade"):
        await collected(server, tmp_path, [("no cost", "x")])


async def test_a_key_that_is_not_in_the_environment_is_told(server, tmp_path):
    with pytest.raises(CascadeError, match="--api-key-env OTHER"):
        await collected(server, tmp_path, [("1+1", "2")], "--api-key-env", "OTHER")
