"""Start-up as SageMaker and a person at the terminal see it."""

import json

import httpx
import pytest

pytestmark = pytest.mark.engine


def test_ping_answers_from_the_first_moments_on_and_names_each_phase(server):
    _, status, body = server.pings[0]
    assert status == 503
    assert body["status"] == "starting"
    # The first answer came while the engine's import, by far the longest step, was still ahead or running.
    phases = [body["phase"] for _, status, body in server.pings if status == 503]
    assert phases[0] in ("starting", "downloading", "converting", "importing")
    for phase in ("importing", "starting the engine process", "warming up"):
        assert phase in phases
    order = list(dict.fromkeys(phases))
    assert order.index("importing") < order.index("starting the engine process") < order.index("warming up")


def test_ping_is_200_only_after_a_token_was_produced(server):
    assert [status for _, status, _ in server.pings].count(200) == 1
    metrics = httpx.get(f"{server.url}/metrics").text
    tokens = [line for line in metrics.splitlines() if line.startswith("vllm:generation_tokens_total{")]
    assert float(tokens[0].rsplit(" ", 1)[1]) >= 1


def test_stdout_has_one_ready_line_and_one_curl_line(server):
    ready, curl = server.stdout.read_text().splitlines()
    assert ready.startswith(f"Tokenport is ready: smollm2-135m-instruct on {server.url} after ")
    assert curl.startswith(f"Try: curl {server.url}/invocations ")


def test_the_printed_curl_line_works(server):
    import shlex
    import subprocess

    words = shlex.split(server.stdout.read_text().splitlines()[1].removeprefix("Try: "))
    answer = subprocess.run([*words, "--silent", "--max-time", "60"], capture_output=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_the_log_is_json_lines_and_a_handful_at_start(server):
    lines = [line for line in server.logged() if line["message"] != "request"]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in server.logged())
    assert len(lines) <= 8, lines
