"""The cascade behind HTTP: `/invocations`, `/v1` and batches see one more model. Its tier elsewhere is scripted, as the engine is."""

import asyncio
import json

import httpx
import openai
import pytest

from serving.api.app import create_app
from serving.cascade.answers import Rules
from serving.cascade.budget import Budget
from serving.cascade.chain import Limits
from serving.cascade.config import BudgetConfig, Price
from serving.cascade.engine import CascadeEngine
from serving.cascade.local_model import LocalModel
from serving.cascade.sticky import Sticky
from serving.errors import Conflict, InvalidRequest, NotReady, SettingsError, TierFailure
from serving.settings import load_settings
from tests.api.conftest import ScriptedChunks, ScriptedEngine
from tests.unit.cascade.scripted import CHAT, SURE, UNSURE, Model, chunk, end, policy, stream, tier, whole

SESSION = "X-Amzn-SageMaker-Session-Id"


class LocalEngine(ScriptedEngine):
    """Lists its models as vLLM does, and says of a body for `/v1` what came."""

    async def openai_app(self, scope, receive, send):
        answer = {"came": json.loads((await receive())["body"])} if scope["method"] == "POST" else {}
        if scope["path"] == "/v1/models":
            answer = {"object": "list", "data": [{"id": "scripted", "object": "model", "created": 7, "owned_by": "vllm"}]}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def engine():
    return LocalEngine()


@pytest.fixture
def large():
    return Model()


@pytest.fixture
def budget():
    return None


@pytest.fixture
def cascade(engine, large, budget):
    small = tier("small", LocalModel(engine), is_local=True)
    rules = Rules(
        [small, tier("large", large, price=Price(input=10, output=20))], policy(), Limits(20.0, 5.0, 1, None), 30.0, budget, Sticky(60.0)
    )
    return CascadeEngine(engine, rules, [])


@pytest.fixture
def app(cascade, lifecycle, in_flight, environ, tmp_path):
    return create_app(cascade, load_settings([], {"TOKENPORT_CACHE_DIR": str(tmp_path), **environ}), lifecycle, in_flight)


@pytest.fixture
async def openai_client(client):
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key="key", max_retries=0, http_client=client)


def drafted(*logprobs: float) -> ScriptedChunks:
    return ScriptedChunks([*(chunk(f"d{number}", logprob) for number, logprob in enumerate(logprobs)), end(10, len(logprobs))])


async def test_a_stream_through_the_openai_client_tells_tier_decision_and_hold(openai_client, engine):
    engine.answer = drafted(SURE, SURE, SURE)
    async with openai_client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        assert response.headers["x-tokenport-tier"] == "small"
        assert response.headers["x-tokenport-decision"] == "accepted"
        assert int(response.headers["x-tokenport-hold-ms"]) >= 0
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines[:-1]] == ["d0", "d1", "d2"]


async def test_a_dropped_draft_leaves_one_answer_and_its_cost_in_the_usage(openai_client, engine, large):
    engine.answer = drafted(UNSURE, UNSURE)
    large.answers = [stream("L0", "L1")]
    chunks = [
        chunk async for chunk in await openai_client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    ]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices) == "L0L1"
    told = chunks[-1].usage.tokenport
    assert (told["tier"], told["decision"], told["rejected_tokens"]) == ("large", "escalated", 2)
    assert told["cost_usd"] > 0
    assert engine.answer.closed


async def test_a_whole_answer_parses_as_openais_and_tells_its_cost(openai_client, engine):
    engine.answer = whole("hello", SURE, SURE)
    response = await openai_client.chat.completions.with_raw_response.create(**CHAT)
    answer = response.parse()
    assert answer.choices[0].message.content == "hello"
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == 2
    assert answer.usage.tokenport["tier"] == "small"
    assert float(response.headers["x-tokenport-cost"]) == pytest.approx(answer.usage.tokenport["cost_usd"])


async def test_invocations_answer_for_auto_in_their_own_forms(client, engine):
    engine.answer = drafted(SURE, SURE)
    answer = await client.post("/invocations", json=CHAT | {"stream": True}, headers={"Accept": "application/jsonlines"})
    assert answer.headers["x-tokenport-tier"] == "small"
    assert [json.loads(line)["choices"][0]["delta"]["content"] for line in answer.text.splitlines()] == ["d0", "d1"]


async def test_lines_of_a_batch_each_tell_their_tier(client, engine):
    engine.answer = whole("hello", SURE, SURE)
    lines = "\n".join(json.dumps(CHAT) for _ in range(3))
    answer = await client.post("/invocations", content=lines, headers={"Content-Type": "application/jsonlines"})
    assert [json.loads(line)["usage"]["tokenport"]["tier"] for line in answer.text.splitlines()] == ["small"] * 3
    assert answer.headers["x-tokenport-tier"] == "several"


async def test_other_models_are_the_engines_and_reach_it_untouched(client, engine):
    body = {"model": "scripted", "messages": CHAT["messages"], "anything": 1}
    assert (await client.post("/v1/chat/completions", json=body)).json() == {"came": body}
    await client.post("/invocations", json=body)
    assert engine.asked[0][1] == body


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"model": 3}', b'{"model": ["auto"]}', b"{", b"[" * 100_000])
async def test_a_body_that_names_no_model_of_the_cascade_goes_to_the_engine(client, engine, content):
    seen = []

    async def app(scope, receive, send):
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    engine.openai_app = app
    assert (await client.post("/v1/chat/completions", content=content)).status_code == 400
    assert seen == [content]


async def test_the_models_are_listed(openai_client):
    assert [model.id async for model in openai_client.models.list()] == ["scripted", "auto", "small", "large"]


async def test_a_refusal_has_its_status_and_field(client, engine):
    engine.answer = InvalidRequest("max_tokens: must be positive", param="max_tokens")
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"


async def test_where_every_tier_failed_the_last_one_is_told(client, engine, large):
    engine.answer = NotReady("no")
    large.answers = [TierFailure("the tier large answered 429: slow down", reason="throttled", retry_after_s=90)]
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 502
    assert answer.headers["retry-after"] == "90"
    assert "slow down" in answer.json()["error"]["message"]


async def test_a_session_that_was_handed_on_stays(client, engine, large):
    engine.answer = drafted(UNSURE, UNSURE)
    large.answers = [stream("L"), stream("M")]
    headers = {SESSION: "session1"}
    await client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=headers)
    body = CHAT | {"stream": True, "messages": [{"role": "user", "content": "something else"}]}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.headers["x-tokenport-decision"] == "sticky"


class TestWithABudgetForEachKey:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_API_KEY": "one,two"}

    @pytest.fixture
    def budget(self):
        return Budget(BudgetConfig(usd=1e-9, window_s=60, per="key", then="refuse"))

    async def test_who_has_spent_it_is_refused_and_others_are_not(self, client, engine):
        engine.answer = whole("hello", SURE, SURE)
        status = [
            (await client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {key}"})).status_code
            for key in ("one", "one", "two")
        ]
        assert status == [200, 429, 200]


async def test_what_the_cascade_does_is_in_the_metrics(client, engine, large):
    engine.answer = drafted(UNSURE, UNSURE)
    large.answers = [stream("L")]
    before = await metrics(client)
    await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    after = await metrics(client)
    grown = {name for name, value in after.items() if value > before.get(name, 0)}
    assert {
        'tokenport_cascade_answers_total{decision="escalated",tier="large"}',
        'tokenport_cascade_tokens_total{kind="rejected",tier="small"}',
        'tokenport_cascade_cost_usd_total{tier="small",use="rejected"}',
        'tokenport_cascade_cost_usd_total{tier="large",use="answer"}',
        'tokenport_cascade_hold_seconds_count{tier="small"}',
    } <= grown


@pytest.mark.parametrize("name", ["auto", "large"])
async def test_no_adapter_can_take_the_name_of_one_of_its_models(engine, cascade, name):
    """It would be registered, and never be answered for."""
    engine.adapters = object()
    with pytest.raises(Conflict, match=f"'{name}' is a model of the cascade"):
        await cascade.adapters.register(name, "/opt/adapter", preload=False, pin=False)


async def test_second_engines_stop_at_the_same_time(engine, cascade):
    """Each may take all the time that there is."""
    both = asyncio.Barrier(2)

    class Second:
        async def stop(self):
            await both.wait()

    async def stop():
        pass

    engine.stop = stop
    cascade._seconds = [Second(), Second()]
    await asyncio.wait_for(cascade.stop(), 5)


async def test_a_tiers_name_must_not_be_the_models(engine, cascade):
    async def start(report):
        pass

    engine.start = start
    engine.model_names = ["large"]
    with pytest.raises(SettingsError, match="'large' is the name of a tier and of the model"):
        await cascade.start(lambda phase, share: None)


async def metrics(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("tokenport_cascade")}
