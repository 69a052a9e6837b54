"""OpenAI-compatible routes and `/invocations` over HTTP: one connection a running request, streams read as they come.

The clock is read as soon as a piece of the answer is there, and parsing comes after. Nothing is retried: a failure is a measurement.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import aiohttp
import msgspec

from benchmarks.client.answer import AnswerReader, fail, one_line, reason_in
from benchmarks.client.bodies import body_of, is_chat, with_history
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Prompt, Request
from benchmarks.measuring.record import Record
from serving.errors import BenchmarkError

# Servers close idle connections after 5 s and more (uvicorn's default); one that was just closed must not be taken for the next request.
_KEEP_ALIVE_S = 4.0
# After [DONE] only the end of the body is still to come; a server that leaves it out loses its connection, and no time is counted.
_END_OF_BODY_S = 1.0
_HTTP_OK = 200


def base_url(spec: TargetSpec) -> str:
    """The server's address without `/v1`.

    Raises:
        BenchmarkError: there is none.
    """
    if not spec.url:
        raise BenchmarkError(f"--api {spec.api} needs --url, like http://127.0.0.1:8080")
    return spec.url.rstrip("/").removesuffix("/v1")


def route_of(spec: TargetSpec, base_path: str) -> str:
    """The URL that generates."""
    if spec.api == "invocations":
        return f"{base_url(spec)}/invocations"
    return f"{base_url(spec)}{base_path}/{'chat/completions' if is_chat(spec) else 'completions'}"


@contextlib.asynccontextmanager
async def opened_session(spec: TargetSpec) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with as many connections as are asked for, which notes in each request's record when it was sent."""
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_note_sending)
    # One look-up for the whole run: the next would be measured as the server's.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=None)
    # A compressed stream would be held back until its window is full.
    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **spec.headers}
    async with aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    ) as session:
        yield session


class HttpTarget:
    """A `Target` over one session."""

    def __init__(self, session: aiohttp.ClientSession, spec: TargetSpec, capabilities: Capabilities, origin_s: float = 0.0) -> None:
        self._session = session
        self._spec = spec
        self._capabilities = capabilities
        self._origin_s = origin_s
        self._url = route_of(spec, capabilities.base_path)

    def begin(self, origin_s: float) -> None:
        """See `driver.Target`."""
        self._origin_s = origin_s

    def with_history(self, history: Prompt | None, answer: str, prompt: Prompt) -> Prompt:
        """See `driver.Target`."""
        return with_history(history, answer, prompt, self._spec)

    async def send(self, request: Request, prompt: Prompt, record: Record, *, wants_text: bool) -> str:
        """See `driver.Target`."""
        body = msgspec.json.encode(body_of(request, prompt, self._spec, self._capabilities))
        reader = AnswerReader(record, wants_text=wants_text)
        try:
            async with self._session.post(
                self._url, data=body, allow_redirects=False, trace_request_ctx=(record, self._origin_s)
            ) as response:
                record.status = response.status
                if response.status != _HTTP_OK:
                    fail(record, "refused", f"HTTP {response.status}: {reason_in(await response.read())}", self._now_s())
                elif response.content_type == "application/json":
                    reader.whole(await response.read(), self._now_s())
                else:
                    await self._read_stream(response, reader)
        except (aiohttp.ClientError, OSError) as error:
            self._note_failure(record, reader, error)
        return reader.text

    async def _read_stream(self, response: aiohttp.ClientResponse, reader: AnswerReader) -> None:
        read_any, origin_s, monotonic = response.content.readany, self._origin_s, time.monotonic
        while read := await read_any():
            reader.feed(read, monotonic() - origin_s)
            if reader.is_over:
                await _finish(response)
                return
        reader.end_of_stream(self._now_s())

    def _note_failure(self, record: Record, reader: AnswerReader, error: Exception) -> None:
        now_s, reason = self._now_s(), one_line(str(error) or type(error).__name__)
        if record.status is None:
            fail(record, "connection", reason, now_s)
        elif record.status != _HTTP_OK:
            fail(record, "refused", f"HTTP {record.status}: {reason}", now_s)
        else:
            reader.end_of_stream(now_s, reason)

    def _now_s(self) -> float:
        return time.monotonic() - self._origin_s


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, so that the connection can be used again."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        if not response.content.at_eof():
            async with asyncio.timeout(_END_OF_BODY_S):
                await response.content.readany()


async def _note_sending(session: aiohttp.ClientSession, context: SimpleNamespace, parameters: aiohttp.TraceRequestChunkSentParams) -> None:
    if context.trace_request_ctx is not None:
        record, origin_s = context.trace_request_ctx
        if record.sent_s is None:
            record.sent_s = time.monotonic() - origin_s
