"""One endpoint. For each call: the credential, the name, the headers, the size, the limits, the container's health; then the container.

Knows HTTP on both sides; what each refusal says is in `errors`, what passes through is in `headers`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from container.conformance.runtime import errors, headers
from container.conformance.runtime.authentication import scope_of_bearer, scope_of_signature
from container.conformance.runtime.container import ContainerBroke, new_client, open_call, read_whole, relay
from container.conformance.runtime.event_stream import CONTENT_TYPE
from container.conformance.runtime.health import Health
from container.conformance.runtime.options import Options
from container.conformance.runtime.replies import StreamReply, events, unless_disconnected
from container.conformance.runtime.scope import Scope
from container.conformance.runtime.splitting import Resplitter
from container.conformance.runtime.throttle import Throttle

_SLOW_CLIENT_GRACE_S = 5.0


@dataclass(frozen=True)
class Call:
    """What the container gets, and for whom."""

    path: str
    headers: dict[str, str]
    body: bytes
    scope: Scope


class Endpoint:
    """The endpoint and the state it keeps between calls."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = new_client()
        self._health = Health(self._client, options.target, options.ping_timeout_s)
        self._throttle = Throttle(options.throttle_rps, options.max_concurrency)
        self._num_streams = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Ping once, then in the background until the end."""
        async with self._client:
            await self._health.ping()
            watching = asyncio.create_task(self._health.watch(self._options.ping_interval_s))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint."""
        body = await self._read_body(request)
        scope = scope_of_signature(request.headers, request.query_params)
        passed = self._checked(request, scope, headers.INVOKE_RULES)
        with self._admitted(body) as content:
            call = Call("/invocations", passed, content, scope)
            status, answered, answer = await unless_disconnected(request, self._whole_answer(call))
        if not 200 <= status < 300 or answer is None:
            raise self._model_error(status, answer, scope)
        return Response(answer, 200, headers.to_client(answered, self._options.variant_name))

    async def _whole_answer(self, call: Call) -> tuple[int, httpx.Headers, bytes | None]:
        try:
            async with asyncio.timeout(self._options.invoke_timeout_s), contextlib.aclosing(await self._open(call)) as response:
                return response.status_code, response.headers, await read_whole(response, self._options.max_body_bytes)
        except TimeoutError as error:
            raise self._model_error(0, errors.TIMED_OUT.encode(), call.scope) from error

    async def invoke_with_response_stream(self, request: Request) -> Response:
        """InvokeEndpointWithResponseStream. What fails before the container's status is there is an error as with InvokeEndpoint."""
        body = await self._read_body(request)
        scope = scope_of_signature(request.headers, request.query_params)
        passed = self._checked(request, scope, headers.STREAM_RULES)
        async with contextlib.AsyncExitStack() as held:
            call = Call("/invocations", passed, held.enter_context(self._admitted(body)), scope)
            deadline_s = asyncio.get_running_loop().time() + self._options.stream_timeout_s
            response = await self._status_of(call, request, self._options.stream_timeout_s, held)
            if not 200 <= response.status_code < 300:
                raise self._model_error(response.status_code, await self._error_text(response), scope)
            parts = await held.enter_async_context(contextlib.aclosing(relay(response, self._splitter(), deadline_s)))
            framed = await held.enter_async_context(contextlib.aclosing(events(parts)))
            answered = headers.to_stream_client(response.headers, self._options.variant_name) | {"Content-Type": CONTENT_TYPE}
            return StreamReply(framed, 200, answered, held.pop_all(), self._options.stream_timeout_s + _SLOW_CLIENT_GRACE_S)

    async def chat(self, request: Request) -> Response:
        """The OpenAI path: the container's own answer, errors included, under a bearer token.

        Assumed, for want of documentation: the status within InvokeEndpoint's time, the whole within a stream's.
        """
        body = await self._read_body(request)
        scope = scope_of_bearer(request.headers)
        passed = self._checked(request, scope, headers.OPENAI_RULES)
        if "component" in request.path_params:
            passed["X-Amzn-SageMaker-Inference-Component"] = request.path_params["component"]
        async with contextlib.AsyncExitStack() as held:
            call = Call("/v1/chat/completions", passed, held.enter_context(self._admitted(body)), scope)
            deadline_s = asyncio.get_running_loop().time() + self._options.stream_timeout_s
            response = await self._status_of(call, request, self._options.invoke_timeout_s, held)
            parts = await held.enter_async_context(contextlib.aclosing(relay(response, self._splitter(), deadline_s)))
            answered = headers.to_openai_client(response.headers)
            limit_s = self._options.stream_timeout_s + _SLOW_CLIENT_GRACE_S
            return StreamReply(parts, response.status_code, answered, held.pop_all(), limit_s)

    async def _read_body(self, request: Request) -> bytes | None:
        """The request's body; `None` if it is over the limit. Read to its end either way, so that the client gets to see the answer."""
        body = bytearray()
        num_bytes = 0
        try:
            async with asyncio.timeout(self._options.invoke_timeout_s):
                async for chunk in request.stream():
                    num_bytes += len(chunk)
                    if num_bytes <= self._options.max_body_bytes:
                        body += chunk
        except TimeoutError as error:
            raise errors.body_too_slow() from error
        return bytes(body) if num_bytes <= self._options.max_body_bytes else None

    def _checked(self, request: Request, scope: Scope, rules: tuple[headers.Rule, ...]) -> dict[str, str]:
        """The headers for the container, once endpoint, headers and variant are found good."""
        name = request.path_params["endpoint_name"]
        if name != self._options.endpoint_name:
            raise errors.endpoint_not_found(name, scope)
        passed = headers.to_container(rules, request.headers)
        variant = passed.get("X-Amzn-SageMaker-Target-Variant", self._options.variant_name)
        if variant != self._options.variant_name:
            raise errors.validation_error(f"Variant {variant} of endpoint {name} not found.")
        return passed

    @contextlib.contextmanager
    def _admitted(self, body: bytes | None) -> Iterator[bytes]:
        if body is None:
            raise errors.body_too_large(self._options.max_body_bytes)
        with self._throttle.admitted():
            if self._health.refusal is not None:
                raise self._health.refusal
            yield body

    async def _status_of(self, call: Call, request: Request, timeout_s: float, held: contextlib.AsyncExitStack) -> httpx.Response:
        """The container's answer, as far as its status and headers; closed with what is held."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await unless_disconnected(request, self._open(call))
        except TimeoutError as error:
            raise self._model_error(0, errors.TIMED_OUT.encode(), call.scope) from error
        return await held.enter_async_context(contextlib.aclosing(response))

    async def _open(self, call: Call) -> httpx.Response:
        try:
            return await open_call(self._client, self._options.target + call.path, call.headers, call.body)
        except ContainerBroke as error:
            raise self._model_error(0, b"The connection was closed before the container answered.", call.scope) from error

    async def _error_text(self, response: httpx.Response) -> bytes | None:
        try:
            async with asyncio.timeout(self._options.invoke_timeout_s):
                return await read_whole(response, self._options.max_body_bytes)
        except TimeoutError:
            return None

    def _model_error(self, status: int, answer: bytes | None, scope: Scope) -> errors.PlatformError:
        message = None if answer is None else answer.decode(errors="replace")
        return errors.model_error(status, message, self._options.endpoint_name, scope)

    def _splitter(self) -> Resplitter:
        self._num_streams += 1
        return Resplitter(Random(f"{self._options.split_seed}/{self._num_streams}"))  # noqa: S311 - the same seed must cut the same way
