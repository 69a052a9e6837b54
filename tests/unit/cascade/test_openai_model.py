"""An OpenAI-compatible server as a tier, over real sockets: each way in which it can fail, before its first byte and after."""

import asyncio
import contextlib
import json

import pytest
from aiohttp import web

from serving.cascade.openai_model import OpenAIModel
from serving.errors import InvalidRequest, TierFailure
from tests.conftest import free_port
from tests.unit.cascade.scripted import chunk, whole

BODY = {"messages": [{"role": "user", "content": "hi"}], "model": "auto"}
STREAM = BODY | {"stream": True}


@contextlib.asynccontextmanager
async def answering(handler):
    """A model whose server answers as `handler` does, and the requests that came."""
    requests = []

    async def keep(request: web.Request) -> web.StreamResponse:
        requests.append((request.path, request.headers, await request.json()))
        return await handler(request)

    app = web.Application()
    app.router.add_post("/{path:.*}", keep)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    model = OpenAIModel("the tier large", f"{site.name}/v1", "served", api_key="secret")
    try:
        yield model, requests
    finally:
        await model.close()
        await runner.cleanup()


def saying(status: int, body: object, **headers: str):
    async def handler(_request):
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return handler


def streaming(*pieces: bytes, breaks_off: bool = False):
    async def handler(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.005)
        if breaks_off:
            request.transport.abort()
        return response

    return handler


def events(*texts: str) -> bytes:
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


async def ask(model, body=BODY, deadline_s=10.0):
    return await model.generate("chat", body, "id1", deadline_s=deadline_s)


async def test_a_request_goes_there_with_its_key_its_id_and_the_model_there():
    async with answering(saying(200, whole("hello").decode())) as (model, requests):
        assert json.loads(await ask(model))["choices"][0]["message"]["content"] == "hello"
    path, headers, body = requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["X-Request-Id"] == "id1"
    assert body == BODY | {"model": "served"}


async def test_completions_have_their_own_path():
    async with answering(saying(200, whole("hello").decode())) as (model, requests):
        await model.generate("completion", {"prompt": "x"}, "id1", deadline_s=10)
    assert requests[0][0] == "/v1/completions"


async def test_a_stream_may_be_split_within_a_character():
    told = events(json.dumps(json.loads(chunk("Zoë")), ensure_ascii=False), "[DONE]")
    at = told.index("ë".encode()) + 1
    async with answering(streaming(told[:at], told[at:])) as (model, _):
        texts = [text async for text in await ask(model, STREAM)]
    assert json.loads(texts[0])["choices"][0]["delta"]["content"] == "Zoë"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (429, "throttled"),
        (503, "not_ready"),
        (504, "timeout"),
        (401, "refused"),
        (404, "refused"),
        (307, "failed"),
        (500, "failed"),
    ],
)
@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_status_is_a_reason_to_ask_another(status, reason, body):
    handler = saying(status, {"error": {"message": "no"}}, **{"Retry-After": "7", "Location": "http://127.0.0.1:1/"})
    async with answering(handler) as (model, requests):
        with pytest.raises(TierFailure, match="the tier large answered") as raised:
            await ask(model, body)
    assert (raised.value.reason, raised.value.retry_after_s) == (reason, 7.0)
    assert "secret" not in str(raised.value)
    assert len(requests) == 1


async def test_what_is_wrong_with_the_request_is_the_clients():
    async with answering(saying(400, {"error": {"message": "top_k: no", "param": "top_k"}})) as (model, _):
        with pytest.raises(InvalidRequest, match="top_k: no") as raised:
            await ask(model)
    assert raised.value.param == "top_k"


async def test_nobody_there_is_unreachable():
    model = OpenAIModel("the tier large", f"http://127.0.0.1:{free_port()}/v1", "m")
    with pytest.raises(TierFailure) as raised:
        await ask(model)
    assert raised.value.reason == "unreachable"
    await model.close()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (streaming(breaks_off=True), "broken"),
        (streaming(b": comment\n\n", breaks_off=True), "broken"),
        (streaming(events('{"error": {"message": "full", "code": 429}}')), "throttled"),
        (streaming(b"<html>busy</html>"), "broken"),
        (streaming(events('{"greeting": "hello"}')), "failed"),
        (streaming(events('{"choices": [{"index": 0, "delta": "hello"}]}')), "failed"),
        (streaming(events('{"choices": [{"index": [], "delta": {}}]}')), "failed"),
        (streaming(events('{"choices": [3]}')), "failed"),
        (streaming(events("[" * 100_000)), "failed"),
    ],
)
async def test_a_stream_that_fails_before_it_says_anything_is_a_reason_to_ask_another(handler, reason):
    async with answering(handler) as (model, _):
        with pytest.raises(TierFailure) as raised:
            await ask(model, STREAM)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "handler",
    [
        streaming(events(chunk("a")), breaks_off=True),
        streaming(events(chunk("a"))),
        streaming(events(chunk("a"), '{"error": {"message": "full", "code": 429}}')),
        streaming(events(chunk("a"), "garbage")),
    ],
)
async def test_a_stream_that_fails_later_ends_in_an_error(handler):
    async with answering(handler) as (model, _):
        texts = [json.loads(text) async for text in await ask(model, STREAM)]
    assert texts[0]["choices"][0]["delta"]["content"] == "a"
    assert "error" in texts[-1]
    assert len(texts) == 2


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_past_the_deadline_it_is_given_up(body):
    async def never(_request):
        await asyncio.sleep(30)

    async with answering(never) as (model, _):
        with pytest.raises(TierFailure) as raised:
            await ask(model, body, deadline_s=0.1)
    assert raised.value.reason == "timeout"


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "[]",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": [3]}',
        '{"choices": [{}], "usage": "much"}',
        '{"error": {}}',
    ],
)
async def test_what_is_no_answer_is_told(text):
    async with answering(saying(200, text)) as (model, _):
        with pytest.raises(TierFailure, match="something else than an OpenAI answer"):
            await ask(model)


@pytest.mark.parametrize("stream", [False, True])
async def test_text_without_the_token_ids_that_were_asked_for_is_a_reason_to_ask_another(stream):
    choice = {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}
    told = json.dumps({"id": "c", "choices": [choice]})
    without = streaming(events(told, "[DONE]")) if stream else saying(200, told)
    async with answering(without) as (model, _):
        body = {"prompt": "x", "stream": stream}
        await model.generate("completion", body, "id1", deadline_s=10)
        with pytest.raises(TierFailure, match="the tier large tells no token_ids"):
            await model.generate("completion", body | {"return_token_ids": True}, "id1", deadline_s=10)


async def test_an_error_that_is_null_is_none():
    async with answering(streaming(events(chunk("a", error=None), "[DONE]"))) as (model, _):
        texts = [json.loads(text) async for text in await ask(model, STREAM)]
    assert texts[0]["choices"][0]["delta"]["content"] == "a"


async def test_closing_a_stream_closes_its_connection():
    left = asyncio.Event()

    async def until_left(request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(events(chunk("a")))
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            left.set()
            raise

    async with answering(until_left) as (model, _):
        chunks = await ask(model, STREAM)
        await anext(chunks)
        await chunks.aclose()
        await asyncio.wait_for(left.wait(), 10)
