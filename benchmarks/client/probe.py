"""Finds out what a target takes, in at most eight tiny requests, before anything is measured.

Steps: its model's name, its route, then the fields that it refuses, then what else it has. A server that has nothing but the generating
route will do, and so does one that answers everything.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from benchmarks.client.answer import one_line, reason_in
from benchmarks.client.bodies import body_of, is_chat
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.openai import base_url, opened_session, route_of
from benchmarks.client.sagemaker import Invoker
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Prompt, Request
from benchmarks.measuring.record import Record
from serving.errors import BenchmarkError

Answer = tuple[int, str]
"""HTTP status, and why where it is an error."""
Ask = Callable[[Capabilities, Prompt], Awaitable[Answer]]

_DEADLINE_S = 120.0
_QUICK_DEADLINE_S = 10.0
_PROMPT = "Hello"
# Any vocabulary has them.
_TOKEN_IDS = (10, 11, 12)
_WRONG_FIELD = (400, 422)
_WRONG_ROUTE = (404, 405)
_NO_ACCESS = (401, 403)
# In this order: what is rarer is doubted first.
_DOUBTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"accepts_continuous_usage": False}, "the server refuses continuous_usage_stats: tokens are not counted piece by piece"),
    ({"accepts_ignore_eos": False}, "the server refuses ignore_eos: answers may be shorter than asked for"),
    (
        {"accepts_continuous_usage": False, "accepts_ignore_eos": False},
        "the server refuses continuous_usage_stats and ignore_eos: answers may be shorter than asked for",
    ),
    (
        {"accepts_stream_options": False, "accepts_continuous_usage": False},
        "the server refuses stream_options: it gives no usage, and tokens are counted by the stream",
    ),
    (
        {"accepts_stream_options": False, "accepts_continuous_usage": False, "accepts_ignore_eos": False},
        "the server refuses stream_options and ignore_eos: tokens are counted by the stream, and answers may be shorter than asked for",
    ),
)


class NoRoute(BenchmarkError):
    """Something answers, but does not know the route, or the model."""


async def probe(spec: TargetSpec) -> Capabilities:
    """What the target takes.

    Raises:
        NoRoute: the route is not there, or not the model.
        BenchmarkError: nothing answers, the key is not accepted, or the simplest request is refused.
    """
    if spec.api in ("sagemaker", "sagemaker-stream"):
        with contextlib.closing(Invoker(spec, 1, _DEADLINE_S)) as invoker:
            return await _settle(_asker_of_sagemaker(invoker, spec), Capabilities(base_path="", model=spec.model), spec)
    async with opened_session(spec) as session:
        found = Capabilities(model=spec.model or await _first_model(session, spec))
        ask = _asker_of_http(session, spec)
        found = await _settle(ask, found, spec)
        if not is_chat(spec):
            status, _ = await ask(found, _TOKEN_IDS)
            found = dataclasses.replace(found, accepts_token_ids=status < 400)
        return dataclasses.replace(found, has_tokenize=await _has_tokenize(session, spec, found.model))


def probe_now(spec: TargetSpec) -> Capabilities:
    """`probe` for callers that have no event loop."""
    return asyncio.run(probe(spec))


async def _settle(ask: Ask, found: Capabilities, spec: TargetSpec) -> Capabilities:
    """Find the route and the fields. A server that is overloaded or fails says nothing of them: they are sent as they are."""
    status, reason = await ask(found, _PROMPT)
    if status in _WRONG_ROUTE and spec.api in ("completions", "chat") and not (spec.url or "").rstrip("/").endswith("/v1"):
        bare = dataclasses.replace(found, base_path="")
        bare_status, bare_reason = await ask(bare, _PROMPT)
        if bare_status not in _WRONG_ROUTE:
            found, status, reason = bare, bare_status, bare_reason
    if status in _NO_ACCESS:
        raise BenchmarkError(f"{_place(spec)} refuses access (HTTP {status}: {reason}): give the key that it asks for")
    if status in _WRONG_ROUTE:
        raise NoRoute(f"{_place(spec)} does not generate (HTTP {status}: {reason}): see --url, --api and --model")
    if status not in _WRONG_FIELD:
        return found
    for fields, note in _DOUBTS:
        doubted = dataclasses.replace(found, **fields, notes=(note,))
        if (await ask(doubted, _PROMPT))[0] < 400:
            return doubted
    raise BenchmarkError(f"{_place(spec)} refuses even a tiny request (HTTP {status}): {reason}")


def _asker_of_http(session: aiohttp.ClientSession, spec: TargetSpec) -> Ask:
    async def ask(capabilities: Capabilities, prompt: Prompt) -> Answer:
        url = route_of(spec, capabilities.base_path)
        body = msgspec.json.encode(_tiny_body(spec, capabilities, prompt))
        try:
            async with asyncio.timeout(_DEADLINE_S), session.post(url, data=body, allow_redirects=False) as response:
                if response.status < 400:
                    await response.read()
                    return response.status, ""
                return response.status, reason_in(await response.read())
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            # It is there and breaks off: that is for the run to show.
            return 200, ""
        except TimeoutError:
            raise BenchmarkError(f"{url} did not answer a tiny request within {_DEADLINE_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise BenchmarkError(f"nothing answers at {url}: {one_line(str(error) or type(error).__name__)}") from error

    return ask


def _asker_of_sagemaker(invoker: Invoker, spec: TargetSpec) -> Ask:
    async def ask(capabilities: Capabilities, prompt: Prompt) -> Answer:
        record = Record(0, 0.0, 1)
        body = msgspec.json.encode(_tiny_body(spec, capabilities, prompt))
        await asyncio.get_running_loop().run_in_executor(None, invoker.invoke, body, record)
        if record.status is None:
            raise BenchmarkError(f"{_place(spec)} does not answer: {record.error}")
        return record.status, record.error or ""

    return ask


def _tiny_body(spec: TargetSpec, capabilities: Capabilities, prompt: Prompt) -> dict[str, Any]:
    return body_of(Request(number=0, prompt=prompt, max_tokens=1), prompt, spec, capabilities)


async def _first_model(session: aiohttp.ClientSession, spec: TargetSpec) -> str | None:
    """The name that the server gives its first model; None where it does not say."""
    for path in ("/v1/models", "/models"):
        found = await _ask_quickly(session, "GET", base_url(spec) + path)
        entries = found.get("data") if isinstance(found, dict) else None
        if isinstance(entries, list) and entries and isinstance(entries[0], dict) and isinstance(entries[0].get("id"), str):
            return str(entries[0]["id"])
    return None


async def _has_tokenize(session: aiohttp.ClientSession, spec: TargetSpec, model: str | None) -> bool:
    body = {"prompt": _PROMPT} | ({} if model is None else {"model": model})
    found = await _ask_quickly(session, "POST", f"{base_url(spec)}/tokenize", msgspec.json.encode(body))
    return isinstance(found, dict) and isinstance(found.get("tokens"), list)


async def _ask_quickly(session: aiohttp.ClientSession, method: str, url: str, body: bytes | None = None) -> Any:
    """The answer's JSON; None where there is none, whatever the reason: what is asked for here can be missing."""
    try:
        async with asyncio.timeout(_QUICK_DEADLINE_S), session.request(method, url, data=body) as response:
            return msgspec.json.decode(await response.read()) if response.status < 400 else None
    except (aiohttp.ClientError, OSError, msgspec.DecodeError):
        return None


def _place(spec: TargetSpec) -> str:
    return f"endpoint {spec.endpoint_name}" if spec.endpoint_name else str(spec.url)
