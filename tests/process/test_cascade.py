"""A cascade of two real engines, small here and large in a process of its own, through the official OpenAI client.

Both are the same model, so that their answers to the same question are the same; what differs is who gave them, and why.
"""

import json
import os
import subprocess
import sys
import threading
import time

import httpx
import openai
import psutil
import pytest
import yaml

from serving.cascade.policy import Policy, Rule, Stage
from serving.cascade.policy_file import write_policy
from tests.conftest import MODEL, ROOT, free_port, start_server
from tests.unit.cascade.scripted import FITTED_ON

pytestmark = pytest.mark.engine
HOLD_TOKENS = 6
RULE = Rule({"logprob_mean": 10.0}, 5.0, (0.0, 1.0), (0.0, 1.0), 0.5)
"""Accepts a mean log-probability above -0.5."""
SURE = [{"role": "user", "content": "What is the chemical symbol for water?"}]
"""The model gives its first tokens a mean log-probability of -0.06."""
UNSURE = [{"role": "user", "content": "Invent a new word and define it."}]
"""Of -1.2."""
ENGINE = {"max_model_len": 4096, "kv_cache_memory_bytes": "128M", "enforce_eager": True}


@pytest.fixture(scope="module")
def cascade(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("cascade")
    write_policy(Policy((Stage("small", None, RULE, HOLD_TOKENS),), "large", FITTED_ON, {}), folder / "policy.json")
    gone = {
        "name": "gone",
        "engine": "openai",
        "url": f"http://127.0.0.1:{free_port()}/v1",
        "model": "m",
        "price": {"input": 5, "output": 9},
    }
    config = {
        "policy": "policy.json",
        "tiers": [
            {"name": "small", "engine": "local", "price": {"input": 0.1, "output": 0.2}, "takes": {"code_fences": {"max": 0}}},
            {"name": "large", "engine": "vllm", "model": MODEL, "arguments": ENGINE, "price": {"per_hour": 2.0}},
            gone,
        ],
    }
    (folder / "cascade.yaml").write_text(yaml.safe_dump(config))
    with start_server(
        folder,
        cache_dir,
        TOKENPORT_CASCADE=str(folder / "cascade.yaml"),
        TOKENPORT_KV_CACHE_MEMORY_BYTES="128M",
        TOKENPORT_MAX_MODEL_LEN="512",
    ) as server:
        yield server


@pytest.fixture
def client(cascade):
    with openai.OpenAI(base_url=f"{cascade.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def ask(client, messages, model="auto", **more):
    """The response with its headers."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24}
    return client.chat.completions.with_raw_response.create(**body, **more)


def text_of(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@pytest.mark.parametrize(("messages", "tier", "decision"), [(SURE, "small", "accepted"), (UNSURE, "large", "escalated")])
def test_a_stream_is_one_answer_of_the_tier_that_the_headers_name(client, messages, tier, decision):
    response = ask(client, messages, stream=True)
    assert (response.headers["x-tokenport-tier"], response.headers["x-tokenport-decision"]) == (tier, decision)
    text = text_of(response.parse())
    assert text == text_of(ask(client, messages, model=tier, stream=True).parse())
    assert len(text) > 10


def test_a_request_that_breaks_a_rule_of_a_tier_is_answered_by_the_next(client):
    code = [{"role": "user", "content": "```\nx = 1\n```\nWhat is x?"}]
    headers = ask(client, code).headers
    assert (headers["x-tokenport-tier"], headers["x-tokenport-decision"]) == ("large", "rule")
    with pytest.raises(openai.BadRequestError, match="the tier 'small' takes code_fences of at most 0, and this has 2"):
        ask(client, code, model="small")


def test_what_vllm_reads_leniently_the_cascade_reads_so_too(cascade):
    body = {"model": "auto", "messages": SURE, "temperature": 0, "max_tokens": 8, "stream": 1, "logprobs": True, "top_logprobs": 3.0}
    lines = httpx.post(f"{cascade.url}/v1/chat/completions", json=body, timeout=60).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    told = [token for chunk in chunks for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert len(told) == 8
    assert {len(token["top_logprobs"]) for token in told} == {3}
    assert not any("usage" in chunk for chunk in chunks)
    assert "data: [DONE]" in lines


def test_what_vllm_refuses_is_refused_by_its_name(client):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, SURE, logprobs=True, top_logprobs="3")
    assert error.value.param == "top_logprobs"


def test_what_is_held_comes_at_once_and_the_rest_as_it_is_made(client):
    response = ask(client, SURE, stream=True, extra_body={"ignore_eos": True, "max_tokens": 60})
    came = [time.monotonic() for chunk in response.parse() if chunk.choices]
    assert len(came) > HOLD_TOKENS + 10
    assert came[-1] - came[HOLD_TOKENS] > came[HOLD_TOKENS - 1] - came[0]


@pytest.mark.parametrize(("messages", "tier"), [(SURE, "small"), (UNSURE, "large")])
def test_a_whole_answer_is_the_tiers_own_with_its_cost_added(client, messages, tier):
    chosen, named = json.loads(ask(client, messages).content), json.loads(ask(client, messages, model=tier).content)
    told = chosen["usage"].pop("tokenport")
    assert told["tier"] == tier
    assert told["cost_usd"] > 0
    assert (told["rejected_tokens"] > 0) == (tier == "large")
    named["usage"].pop("tokenport")
    for answer in (chosen, named):
        answer.pop("id")
        answer.pop("created")
    assert chosen == named


def test_the_answer_of_the_local_tier_is_the_engines_own(client):
    own, named = json.loads(ask(client, SURE, model=MODEL).content), json.loads(ask(client, SURE, model="small").content)
    named["usage"].pop("tokenport")
    assert named.keys() == own.keys()
    assert named["choices"] == own["choices"]
    assert named["usage"] == own["usage"]


def test_a_stream_of_the_local_tier_is_the_engines_own_chunk_by_chunk(cascade):
    # vLLM tells its fingerprint with the usage where that is asked for, and in the last chunk otherwise.
    other = ("id", "created", "system_fingerprint")

    def chunks(model: str) -> list[dict]:
        body = {"model": model, "messages": SURE, "temperature": 0, "max_tokens": 12, "stream": True}
        lines = httpx.post(f"{cascade.url}/v1/chat/completions", json=body, timeout=60).text.splitlines()
        found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        return [{name: value for name, value in chunk.items() if name not in other} for chunk in found]

    assert chunks("auto") == chunks(MODEL)


def test_completions_are_judged_too(client):
    answer = client.completions.create(model="auto", prompt="1, 2, 3, 4, 5, 6, 7, 8, 9, 10,", temperature=0, max_tokens=12)
    assert "11" in answer.choices[0].text
    assert answer.choices[0].logprobs is None
    assert answer.usage.tokenport["hold_ms"] is not None


def test_the_text_generation_form_is_judged_too(cascade):
    body = {"inputs": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,", "model": "auto", "parameters": {"max_new_tokens": 12, "details": True}}
    answer = httpx.post(f"{cascade.url}/invocations", json=body, timeout=60)
    assert "11" in answer.json()["generated_text"]
    assert answer.json()["details"]["generated_tokens"] == 12
    assert answer.headers["x-tokenport-hold-ms"]


def test_the_tiers_are_among_the_models(client):
    assert [model.id for model in client.models.list()] == [MODEL, "auto", "small", "large", "gone"]


def test_a_tier_that_cannot_be_reached_is_named(client):
    with pytest.raises(openai.InternalServerError) as error:
        ask(client, SURE, model="gone")
    assert error.value.status_code == 502
    assert "the tier gone cannot be reached" in error.value.message


def test_a_client_that_leaves_frees_the_engine_elsewhere_and_pays_for_what_was_made(cascade, client):
    num_before = of_large(cascade, "tokens_total", kind="completion")
    stream = ask(client, SURE, model="large", stream=True, extra_body={"ignore_eos": True, "max_tokens": 4000}).parse()
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 60
    while (num_after := of_large(cascade, "tokens_total", kind="completion")) == num_before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Where processors are short it takes seconds until the server is run at all and sees that the client has left.
    assert num_after - num_before < 2000
    # Its machine is idle now, and that costs.
    idle_usd = of_large(cascade, "idle_usd")
    time.sleep(0.05)
    assert of_large(cascade, "idle_usd") > idle_usd


def test_the_death_of_an_engine_beside_ends_the_server_in_one_line(cascade):
    watcher = threading.Timer(60, cascade.process.kill)
    watcher.start()
    second = second_engine(cascade)
    its_own = second.children(recursive=True)
    second.kill()
    assert cascade.process.wait() == 1
    watcher.cancel()
    assert cascade.log_lines()[-1] == "tokenport: the tier large died (ended by SIGKILL)"
    assert its_own
    assert not psutil.wait_procs(its_own, timeout=10)[1], "what it had started would hold the memory for ever"


def test_a_policy_for_another_model_stops_the_start_before_that_is_loaded(tmp_path, cache_dir):
    """The embedded model is nowhere to be looked at before it has been made."""
    policy = Policy((Stage("small", None, RULE, HOLD_TOKENS),), "large", FITTED_ON, {"small.model": "sha256:0"})
    write_policy(policy, tmp_path / "policy.json")
    large = {"name": "large", "engine": "openai", "url": "http://127.0.0.1:9/v1", "model": "m", "price": {}}
    config = {"policy": "policy.json", "tiers": [{"name": "small", "engine": "local", "price": {}}, large]}
    (tmp_path / "cascade.yaml").write_text(yaml.safe_dump(config))
    settings = {"CASCADE": str(tmp_path / "cascade.yaml"), "PORT": str(free_port()), "CACHE_DIR": str(cache_dir)}
    environ = os.environ | {f"TOKENPORT_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "serving", "serve", MODEL]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("tokenport: cascade: the policy was fitted for another model of the tier small")


def of_large(cascade, name: str, **labels: str) -> float:
    shown = ",".join(f'{label}="{value}"' for label, value in (labels | {"tier": "large"}).items())
    lines = httpx.get(f"{cascade.url}/metrics", timeout=10).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"tokenport_cascade_{name}{{{shown}}}"))


def second_engine(cascade) -> psutil.Process:
    children = psutil.Process(cascade.process.pid).children()
    return next(child for child in children if child.cmdline()[1:4] == ["-m", "serving", "serve"])
