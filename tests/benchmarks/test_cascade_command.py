"""`tokenport bench cascade` against a server on loopback that says of each answer who gave it, why, and what it cost."""

import asyncio
import json

import pytest
from aiohttp import web

from benchmarks.__main__ import main
from benchmarks.report import document

RIGHT = {"1+1": "2", "2+2": "4", "easy": "yes"}
METRICS = """\
tokenport_cascade_deciding_seconds_bucket{{le="0.0001"}} {num}
tokenport_cascade_deciding_seconds_bucket{{le="+Inf"}} {num}
tokenport_cascade_deciding_seconds_sum {total}
"""


class Server:
    """The small tier knows the easy question only, and `auto` keeps it for that. `cut`: whose streams break off, `garbage`: whose are
    not JSON."""

    def __init__(self) -> None:
        self.url = ""
        self.num_decided = 7
        self.num_asked = 0
        self.has_metrics = True
        self.cut = ""
        self.garbage = ""

    async def answer(self, request):
        body = await request.json()
        model, question = body["model"], body["messages"][-1]["content"]
        self.num_asked += 1
        tier = model if model != "auto" else "small" if question == "easy" else "large"
        if model == "auto":
            self.num_decided += 1
        decision = "named" if model == tier else "accepted" if tier == "small" else "escalated"
        headers = {"x-tokenport-tier": tier, "x-tokenport-decision": decision, "x-tokenport-cost": "0.0", "x-tokenport-hold-ms": "12"}
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **headers})
        await response.prepare(request)
        if model == self.garbage:
            await response.write(b"data: {no JSON\n\n")
        text = RIGHT[question] if tier == "large" or question == "easy" else "?"
        for piece in text:
            await response.write(f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n".encode())
        if model != self.cut:
            usage = {"completion_tokens": len(text), "tokenport": {"cost_usd": 0.5 if tier == "small" else 2.0}}
            await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        return response

    async def metrics(self, _request):
        if not self.has_metrics:
            raise web.HTTPNotFound
        return web.Response(text=METRICS.format(num=self.num_decided, total=0.00005 * self.num_decided))


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_get("/metrics", server.metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


async def bench(server, tmp_path, *more):
    file = tmp_path / "questions.jsonl"
    lines = ({"id": text, "messages": [{"role": "user", "content": text}], "answer": answer} for text, answer in RIGHT.items())
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["cascade", server.url, "--questions", str(file), "--tiers", "small,large", "--out", str(tmp_path / "out.json"), *more]
    return await asyncio.to_thread(main, words, {})


async def test_the_cascade_stands_beside_its_tiers(server, tmp_path, capsys):
    assert await bench(server, tmp_path) == 0
    result = document.load(tmp_path / "out.json")
    by_model = result["metrics"]["by_model"]
    assert {model: metrics["quality"] for model, metrics in by_model.items()} == pytest.approx({"small": 1 / 3, "large": 1, "auto": 1})
    assert {model: metrics["cost_usd"] for model, metrics in by_model.items()} == pytest.approx({"small": 0.5, "large": 2, "auto": 1.5})
    assert by_model["auto"]["share_large"] == pytest.approx(2 / 3)
    assert by_model["auto"]["decisions"] == {"large escalated": 2, "small accepted": 1}
    assert by_model["auto"]["hold_s"]["mean"] == pytest.approx(0.012)
    assert "100.0% right" in " ".join(capsys.readouterr().out.split())


async def test_only_the_decisions_of_the_run_count(server, tmp_path):
    await bench(server, tmp_path)
    deciding = document.load(tmp_path / "out.json")["metrics"]["deciding_s"]
    assert (deciding["num"], deciding["p99"]) == (3, 0.0001)
    assert deciding["mean"] == pytest.approx(0.00005)


async def test_a_stream_that_breaks_off_makes_the_run_invalid(server, tmp_path, capsys):
    server.cut = "large"
    assert await bench(server, tmp_path) == 3
    result = document.load(tmp_path / "out.json")
    assert result["invalid_reasons"] == ["3 answers failed; the first: large: 1+1: the stream ended before [DONE]"]
    assert result["metrics"]["by_model"]["large"]["quality"] == 0


async def test_an_answer_that_is_not_understood_is_a_failure_of_its_own(server, tmp_path):
    server.garbage = "small"
    assert await bench(server, tmp_path) == 3
    assert "an answer that is not understood" in document.load(tmp_path / "out.json")["invalid_reasons"][0]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tiers", "small"], "--tiers 'small': name the tiers from small to large"),
        (["--tiers", "small,small"], "--tiers 'small,small': name the tiers from small to large, each once"),
        (["--tiers", "small,auto"], "without auto"),
        (["--timeout", "nan"], "--timeout nan: give a number above 0"),
        (["--max-tokens", "0"], "--max-tokens 0: give a number above 0"),
        (["--concurrency", "-1"], "--concurrency -1: give a number above 0"),
    ],
)
async def test_an_option_without_a_meaning_is_refused_by_name(server, tmp_path, capsys, more, told):
    assert await bench(server, tmp_path, *more) == 2
    assert told in capsys.readouterr().err
    assert server.num_asked == 0


async def test_a_server_that_tells_no_metrics_is_asked_nothing(server, tmp_path, capsys):
    server.has_metrics = False
    assert await bench(server, tmp_path) == 2
    assert "/metrics cannot be read" in capsys.readouterr().err
    assert server.num_asked == 0


async def test_tiers_may_have_spaces_between_them(server, tmp_path):
    assert await bench(server, tmp_path, "--tiers", "small, large") == 0
    assert document.load(tmp_path / "out.json")["target"]["tiers"] == ["small", "large"]
