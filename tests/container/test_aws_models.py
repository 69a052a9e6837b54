"""SageMaker and Bedrock as models elsewhere, over real sockets: every error of theirs at every point of an answer, sent for once only."""

import asyncio
import contextlib
import json
import os
import socket
import threading

import aiohttp
import boto3
import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config

from container.conformance.runtime.event_stream import encode_payload_part
from serving.aws.bedrock_model import BedrockModel
from serving.errors import BodyTooLarge, InvalidRequest, StartError, TierFailure
from tests.container.aws_service import (
    BODY,
    MODEL_ID,
    SAGEMAKER_CHUNKS,
    STREAMS,
    USAGE,
    WHOLE,
    WORDS,
    answers,
    event,
    exception,
    model_at,
    streams,
    tls_in_front_of,
)
from tests.container.runtime_support import CREDENTIALS, ENDPOINT, runtime, scripted_container, until

SERVICES = ("sagemaker", "bedrock")
LONG_S = 60.0


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS["aws_secret_access_key"])
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="module")
def loader():
    return botocore.loaders.create_loader()


@pytest.fixture(autouse=True)
def services_are_read_once(monkeypatch, loader):
    """botocore would read its files about a service again for every model of every test."""

    def get_session():
        session = botocore.session.Session()
        session.register_component("data_loader", loader)
        return session

    monkeypatch.setattr(botocore.session, "get_session", get_session)


@pytest.fixture(scope="module")
def shared():
    with scripted_container() as container:
        yield container


@pytest.fixture
def service(shared):
    """The scripted other side, with nothing received yet."""
    shared.exchanges.clear()
    return shared


async def asked(name: str, url: str, body: dict | None = None, deadline_s: float = LONG_S, **options):
    """The whole answer."""
    async with model_at(name, url, **options) as model:
        return json.loads(await model.generate("chat", body or BODY, "request-1", deadline_s=deadline_s))


async def streamed(name: str, url: str, body: dict | None = None, deadline_s: float = LONG_S, **options) -> list[dict]:
    """The chunks of a streamed answer."""
    async with model_at(name, url, **options) as model:
        chunks = await model.generate("chat", (body or BODY) | {"stream": True}, "request-1", deadline_s=deadline_s)
        return [json.loads(text) async for text in chunks]


def said(chunks: list[dict]) -> list[str]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    return [delta["content"] for delta in deltas if delta.get("content")]


# What goes there and what comes back.


@pytest.mark.parametrize("name", SERVICES)
async def test_an_answer_is_openais(service, name):
    service.script = answers(200, WHOLE[name])
    answer = await asked(name, service.url)
    [choice] = answer["choices"]
    assert (answer["object"], choice["message"]["content"], choice["finish_reason"]) == ("chat.completion", "".join(WORDS), "stop")
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (13, 5, 18)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_stream_is_openais_chunks_with_usage_in_the_last(service, name):
    service.script = streams(STREAMS[name])
    chunks = await streamed(name, service.url)
    assert said(chunks) == WORDS
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks[:-1])
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 13


@pytest.mark.parametrize("name", SERVICES)
async def test_a_word_is_given_when_it_comes(service, name):
    has_been_read = threading.Event()

    def script(exchange):
        exchange.begin_stream("application/vnd.amazon.eventstream")
        for message in STREAMS[name][:2]:
            exchange.chunk(message)
        assert has_been_read.wait(LONG_S)
        for message in [*STREAMS[name][2:], b""]:
            exchange.chunk(message)

    service.script = script
    async with model_at(name, service.url) as model:
        chunks = await model.generate("chat", BODY | {"stream": True}, "request-1", deadline_s=LONG_S)
        first = []
        while not said(first):
            first.append(json.loads(await anext(chunks)))
        has_been_read.set()
        assert said(first + [json.loads(text) async for text in chunks]) == WORDS


@pytest.mark.parametrize("num_bytes", [1, 7, 100])
@pytest.mark.parametrize("name", SERVICES)
async def test_the_network_may_split_a_stream_anywhere(service, name, num_bytes):
    whole = b"".join(STREAMS[name])
    service.script = streams(whole[start : start + num_bytes] for start in range(0, len(whole), num_bytes))
    assert said(await streamed(name, service.url)) == WORDS


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_sagemaker_gets_the_openai_body_and_whom_it_is_for(service, is_streamed):
    service.script = streams(STREAMS["sagemaker"]) if is_streamed else answers(200, WHOLE["sagemaker"])
    ask = streamed if is_streamed else asked
    await ask("sagemaker", service.url, BODY | {"model": "auto", "temperature": 0}, component="small", model="qwen")
    [exchange] = service.exchanges
    suffix = "-response-stream" if is_streamed else ""
    assert exchange.path == f"/endpoints/{ENDPOINT}/invocations{suffix}"
    assert exchange.headers["x-amzn-sagemaker-inference-component"] == "small"
    assert exchange.headers["x-amzn-sagemaker-inference-id"] == "request-1"
    assert "/eu-west-1/sagemaker/aws4_request" in exchange.headers["authorization"]
    assert json.loads(exchange.body) == BODY | {"model": "qwen", "temperature": 0} | ({"stream": True} if is_streamed else {})


async def test_without_a_name_the_container_chooses_its_model(service):
    service.script = answers(200, WHOLE["sagemaker"])
    await asked("sagemaker", service.url, BODY | {"model": "auto"})
    assert json.loads(service.exchanges[0].body) == BODY


async def test_bedrock_gets_an_arn_in_its_path(service):
    service.script = answers(200, WHOLE["bedrock"])
    await asked("bedrock", service.url, BODY | {"model": "auto", "max_tokens": 5})
    [exchange] = service.exchanges
    assert exchange.path == f"/model/{MODEL_ID.replace(':', '%3A').replace('/', '%2F')}/converse"
    assert "/eu-west-1/bedrock/aws4_request" in exchange.headers["authorization"]
    assert json.loads(exchange.body) == {
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
        "inferenceConfig": {"maxTokens": 5},
    }


def test_the_imitation_of_bedrock_is_one_that_boto3_reads(service):
    with contextlib.closing(
        boto3.client("bedrock-runtime", endpoint_url=service.url, config=Config(retries={"total_max_attempts": 1}), **CREDENTIALS)
    ) as client:
        messages = [{"role": "user", "content": [{"text": "Hello"}]}]
        service.script = streams(STREAMS["bedrock"])
        events = list(client.converse_stream(modelId=MODEL_ID, messages=messages)["stream"])
        service.script = answers(200, WHOLE["bedrock"])
        whole = client.converse(modelId=MODEL_ID, messages=messages)
    assert [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e] == WORDS
    assert (events[-1]["metadata"]["usage"], whole["usage"]) == (USAGE, USAGE)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_role_that_may_not_be_taken_is_a_refusal(service, name, monkeypatch, tmp_path):
    profile = "[profile other]\nrole_arn = arn:aws:iam::123456789012:role/other\ncredential_source = Environment\nregion = eu-west-1\n"
    (tmp_path / "config").write_text(profile)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "other")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>may not assume it</Message></Error></ErrorResponse>"
    service.script = lambda exchange: exchange.answer(denied, 403, content_type="text/xml")
    with pytest.raises(TierFailure, match="may not assume it") as failed:
        await asked(name, service.url)
    assert failed.value.reason == "refused"


@pytest.mark.parametrize("name", SERVICES)
async def test_a_port_that_is_none_is_told(name):
    with pytest.raises(TierFailure, match="check AWS_ENDPOINT_URL"):
        await asked(name, "http://127.0.0.1:1x")


async def test_moto_answers_too(service):
    # Flask, which it brings, may be in no process that an engine runs in: vLLM looks at all modules, and Flask's proxies do not bear that.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        results = {"account_id": "123456789012", "region": "eu-west-1", "results": [{"Body": json.dumps(WHOLE["sagemaker"])}]}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}/moto-api/static/sagemaker/endpoint-results", json=results) as queued,
        ):
            assert queued.status == 201
        assert (await asked("sagemaker", url))["choices"] == WHOLE["sagemaker"]["choices"]
    finally:
        server.stop()


async def test_over_tls_with_the_certificates_that_botocore_is_told_of_and_with_a_bearer_token(service, tmp_path, monkeypatch):
    service.script = streams(STREAMS["bedrock"])
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "token-1")
    with tls_in_front_of(service, tmp_path) as (url, certificate):
        with pytest.raises(TierFailure, match="certificate") as failure:
            await streamed("bedrock", url)
        assert failure.value.reason == "unreachable"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert said(await streamed("bedrock", url)) == WORDS
    assert service.exchanges[-1].headers["authorization"] == "Bearer token-1"


async def test_through_the_local_runtime_which_splits_where_it_likes(service):
    lines = [f"data: {json.dumps(item, ensure_ascii=False)}\n\n".encode() for item in SAGEMAKER_CHUNKS]

    def script(exchange):
        exchange.begin_stream()
        for data in [*lines, b"data: [DONE]\n\n", b""]:
            exchange.chunk(data)

    service.script = script
    with runtime(service.url) as url:
        for _ in range(5):
            assert said(await streamed("sagemaker", url)) == WORDS
        service.script = answers(400, {"error": {"message": "max_tokens: must be 1 or more", "param": "max_tokens"}})
        with pytest.raises(InvalidRequest, match="must be 1 or more") as refused:
            await streamed("sagemaker", url)
        assert refused.value.param == "max_tokens"


# Errors before the answer.


def container_error(status: int, message: str = "") -> tuple[int, dict, str]:
    body = {"Message": "Received error from primary", "OriginalMessage": message, "OriginalStatusCode": status}
    return 424, body, "ModelError"


BY_BOTH = [
    ((429, {"message": "slow down"}, "ThrottlingException"), "throttled"),
    ((429, {"message": "loading"}, "ModelNotReadyException"), "not_ready"),
    ((403, {"Message": "no bedrock:InvokeModel"}, "AccessDeniedException"), "refused"),
    ((403, {"message": "The security token included in the request is expired"}, "ExpiredTokenException"), "refused"),
    ((403, {"message": "invalid token"}, "UnrecognizedClientException"), "refused"),
    ((404, {"message": "no such thing"}, "ResourceNotFoundException"), "refused"),
    ((408, {"message": "timed out"}, "ModelTimeoutException"), "timeout"),
    ((500, {"message": "oops"}, "InternalServerException:http://internal.amazon.com/"), "failed"),
    ((503, {"message": "try again"}, "ServiceUnavailableException"), "not_ready"),
    ((503, {"message": None}, None), "not_ready"),
    ((502, "no JSON of AWS", None), "failed"),
]
SAGEMAKERS = [
    # Throttling of an endpoint: 400, and no message at all.
    ((400, {"message": None}, "ThrottlingException"), "throttled"),
    ((400, {"Message": "Endpoint chat of account 123456789012 not found."}, "ValidationError"), "refused"),
    ((503, {"Message": "The service is unavailable."}, "ServiceUnavailable"), "not_ready"),
    ((530, {"Message": "dependency"}, "InternalDependencyException"), "failed"),
    ((500, {"Message": "internal"}, "InternalFailure"), "failed"),
    (container_error(429, '{"error": {"message": "the queue is full"}}'), "throttled"),
    (container_error(503, '{"error": {"message": "loading"}}'), "not_ready"),
    (container_error(500, "Traceback"), "failed"),
    (container_error(0, "Your invocation timed out while waiting for a response from container primary."), "timeout"),
    (container_error(0, "The connection was closed"), "broken"),
]
BEDROCKS = [
    ((424, {"message": "the model failed", "originalStatusCode": 500}, "ModelErrorException"), "failed"),
    ((400, {"message": "quota"}, "ServiceQuotaExceededException"), "throttled"),
    ((400, {"message": "The provided model identifier is invalid."}, "ValidationException"), "refused"),
    ((400, {"message": "Invocation of model ID m with on-demand throughput isn't supported."}, "ValidationException"), "refused"),
]
ROWS = [(name, *row) for name in SERVICES for row in BY_BOTH]
ROWS += [("sagemaker", *row) for row in SAGEMAKERS] + [("bedrock", *row) for row in BEDROCKS]


@pytest.mark.parametrize("ask", [asked, streamed])
@pytest.mark.parametrize(("name", "answer", "reason"), ROWS)
async def test_what_is_not_the_callers_fault_lets_another_model_be_asked(service, name, answer, reason, ask):
    service.script = answers(*answer)
    with pytest.raises(TierFailure) as failure:
        await ask(name, service.url)
    assert failure.value.reason == reason
    assert "\n" not in failure.value.message
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("ask", [asked, streamed])
@pytest.mark.parametrize(
    ("name", "answer", "error"),
    [
        ("sagemaker", container_error(400, '{"error": {"message": "the prompt is too long", "param": "messages"}}'), InvalidRequest),
        ("sagemaker", container_error(422, '{"detail": "the prompt is too long"}'), InvalidRequest),
        ("sagemaker", (413, {"message": "the prompt is too long"}, None), BodyTooLarge),
        ("bedrock", (400, {"message": "the prompt is too long"}, "ValidationException"), InvalidRequest),
    ],
)
async def test_what_is_the_callers_fault_is_told_the_caller(service, name, answer, error, ask):
    service.script = answers(*answer)
    with pytest.raises(error, match="the prompt is too long"):
        await ask(name, service.url)
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("ask", [asked, streamed])
async def test_a_connection_that_is_closed_without_an_answer_is_broken(service, name, ask):
    service.script = lambda exchange: None
    with pytest.raises(TierFailure) as failure:
        await ask(name, service.url)
    assert failure.value.reason == "broken"
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("name", SERVICES)
async def test_where_nothing_listens_it_is_unreachable(name):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TierFailure) as failure:
            await asked(name, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert failure.value.reason == "unreachable"


@pytest.mark.parametrize("name", SERVICES)
async def test_without_credentials_nothing_is_sent(service, name, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(TierFailure, match="credentials") as failure:
        await asked(name, service.url)
    assert (failure.value.reason, service.exchanges) == ("refused", [])


@pytest.mark.parametrize("name", SERVICES)
async def test_an_address_that_is_none_stops_the_start(name):
    with pytest.raises(StartError, match="not an address"):
        async with model_at(name, "not an address"):
            pass


@pytest.mark.parametrize("name", SERVICES)
async def test_certificates_that_cannot_be_read_stop_the_start(name, service, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(StartError, match="No such file"):
        async with model_at(name, service.url):
            pass


def test_without_a_region_nothing_is_started():
    with pytest.raises(StartError, match="AWS_DEFAULT_REGION"):
        BedrockModel(MODEL_ID)


@pytest.mark.parametrize(
    ("name", "body"), [("sagemaker", {"status": "ok"}), ("sagemaker", "text"), ("bedrock", {"status": "ok"}), ("bedrock", "text")]
)
async def test_an_answer_in_another_form_is_a_failure(service, name, body):
    service.script = answers(200, body)
    with pytest.raises(TierFailure) as failure:
        await asked(name, service.url)
    assert failure.value.reason == "failed"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_text_of_a_container_that_tells_no_token_ids_is_no_answer_to_who_asks_for_them(service, is_streamed):
    choice = {"index": 0, "text": "a", "finish_reason": "stop"}
    chunk = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
    service.script = streams([encode_payload_part(chunk)]) if is_streamed else answers(200, {"choices": [choice]})
    body = {"prompt": "x", "stream": is_streamed, "return_token_ids": True}
    async with model_at("sagemaker", service.url) as model:
        with pytest.raises(TierFailure, match="tells no token_ids"):
            await model.generate("completion", body, "request-1", deadline_s=LONG_S)


# Errors inside the stream.

IN_STREAM = [
    ("sagemaker", exception("ModelStreamError", Message="too slow", ErrorCode="ModelInvocationTimeExceeded"), "timeout"),
    ("sagemaker", exception("ModelStreamError", Message="reset", ErrorCode="StreamBroken"), "broken"),
    ("sagemaker", exception("InternalStreamFailure", Message="oops"), "failed"),
    ("sagemaker", encode_payload_part(b'data: {"error": {"message": "the engine died", "code": 503}}\n\n'), "not_ready"),
    ("sagemaker", encode_payload_part(b"data: no chunk\n\n"), "failed"),
    ("sagemaker", b"damaged by somebody on the way", "broken"),
    ("bedrock", exception("throttlingException", message="slow down"), "throttled"),
    ("bedrock", exception("ThrottlingException", message="slow down"), "throttled"),
    ("bedrock", exception("serviceUnavailableException", message="try again"), "not_ready"),
    ("bedrock", exception("internalServerException", message="oops"), "failed"),
    ("bedrock", exception("modelStreamErrorException", message="the model failed", originalStatusCode=500), "failed"),
    ("bedrock", event("messageStop", stopReason="malformed_model_output"), "failed"),
    ("bedrock", event("contentBlockDelta", contentBlockIndex=0), "failed"),
    ("bedrock", b"damaged by somebody on the way", "broken"),
]


@pytest.mark.parametrize("num_before", [0, 1])
@pytest.mark.parametrize(("name", "message", "reason"), IN_STREAM)
async def test_an_error_before_the_first_word_lets_another_model_be_asked(service, name, message, reason, num_before):
    """Also after the message that only says who speaks."""
    service.script = streams([*STREAMS[name][:num_before], message])
    with pytest.raises(TierFailure) as failure:
        await streamed(name, service.url)
    assert failure.value.reason == reason
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("num_before", [2, 4, 5])
@pytest.mark.parametrize(("name", "message", "reason"), IN_STREAM)
async def test_an_error_after_the_first_word_is_the_last_chunk(service, name, message, reason, num_before):
    """After the first word, after the last, and after the end of the message."""
    service.script = streams([*STREAMS[name][:num_before], message])
    chunks = await streamed(name, service.url)
    assert said(chunks) == WORDS[: num_before - 1]
    assert chunks[-1]["error"]["code"] == 502
    assert not any("error" in chunk for chunk in chunks[:-1])
    assert len(service.exchanges) == 1


async def test_a_request_that_bedrock_finds_wrong_in_the_stream_is_the_callers(service):
    service.script = streams([exception("validationException", message="too many tokens")])
    with pytest.raises(InvalidRequest, match="too many tokens"):
        await streamed("bedrock", service.url)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("num_before", [0, 1, 2, 4])
@pytest.mark.parametrize("name", SERVICES)
async def test_a_stream_that_stops_in_the_middle_is_broken(service, name, num_before, ends):
    service.script = streams(STREAMS[name][:num_before], ends=ends)
    if num_before < 2:
        with pytest.raises(TierFailure) as failure:
            await streamed(name, service.url)
        assert failure.value.reason == "broken"
    else:
        chunks = await streamed(name, service.url)
        assert (said(chunks), "error" in chunks[-1]) == (WORDS[: num_before - 1], True)


async def test_after_the_end_was_told_nothing_is_amiss(service):
    service.script = streams([*STREAMS["sagemaker"], exception("ModelStreamError", Message="reset", ErrorCode="StreamBroken")])
    chunks = await streamed("sagemaker", service.url)
    assert "error" not in chunks[-1]


async def test_a_stream_whose_end_is_only_in_its_choices_is_whole(service):
    lines = [encode_payload_part(f"{json.dumps(item)}\n".encode()) for item in SAGEMAKER_CHUNKS]
    service.script = streams(lines)
    assert said(chunks := await streamed("sagemaker", service.url)) == WORDS
    assert "error" not in chunks[-1]


# Silence, and leaving.


class Silence:
    """Sends the messages and then nothing; `left` is set when the client closes its connection."""

    def __init__(self, messages=(), head=True):
        self.messages, self.head, self.left, self.asked = messages, head, threading.Event(), threading.Event()

    def __call__(self, exchange):
        if self.head:
            exchange.begin_stream("application/vnd.amazon.eventstream")
        for message in self.messages:
            exchange.chunk(message)
        self.asked.set()
        if exchange.left_within(LONG_S):
            self.left.set()


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(("head", "num_before", "ask"), [(False, 0, asked), (False, 0, streamed), (True, 0, streamed), (True, 1, streamed)])
async def test_silence_before_the_first_word_ends_at_the_deadline_and_is_not_asked_again(service, name, head, num_before, ask):
    service.script = silence = Silence(STREAMS[name][:num_before], head)
    with pytest.raises(TierFailure) as failure:
        await ask(name, service.url, deadline_s=0.4)
    assert failure.value.reason == "timeout"
    assert until(silence.left.is_set)
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("name", SERVICES)
async def test_silence_in_the_middle_ends_with_an_error_at_the_deadline(service, name):
    service.script = silence = Silence(STREAMS[name][:3])
    chunks = await streamed(name, service.url, deadline_s=2.0)
    assert said(chunks) == WORDS[:2]
    assert "in time" in chunks[-1]["error"]["message"]
    assert until(silence.left.is_set)
    assert len(service.exchanges) == 1


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_cancelling_while_nothing_has_come_closes_the_connection(service, name, is_streamed):
    service.script = silence = Silence(head=False)
    async with model_at(name, service.url) as model:
        asking = asyncio.create_task(model.generate("chat", BODY | {"stream": is_streamed}, "request-1", deadline_s=LONG_S))
        assert await asyncio.to_thread(silence.asked.wait, LONG_S)
        asking.cancel()
        assert await asyncio.to_thread(silence.left.wait, LONG_S)


@pytest.mark.parametrize("name", SERVICES)
async def test_leaving_a_stream_closes_the_connection(service, name):
    service.script = silence = Silence(STREAMS[name][:3])
    async with model_at(name, service.url) as model:
        chunks = await model.generate("chat", BODY | {"stream": True}, "request-1", deadline_s=LONG_S)
        await anext(chunks)
        await chunks.aclose()
        assert await asyncio.to_thread(silence.left.wait, LONG_S)
