"""SageMaker's InvokeEndpoint and InvokeEndpointWithResponseStream through boto3, a thread a running request.

boto3 blocks, so its threads hand what they saw to the event loop. A thread cannot be cut off: one that is given up goes on until
botocore's own deadline and is heard no more. Retries are off: a failure is a measurement.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EventStreamError, ReadTimeoutError

from benchmarks.client.answer import AnswerReader, fail, one_line
from benchmarks.client.bodies import body_of, is_streamed, with_history
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Prompt, Request
from benchmarks.measuring.record import Record
from serving.errors import BenchmarkError

MAX_THREADS = 512
_CONNECT_TIMEOUT_S = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOOPBACK_CREDENTIALS = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark"}
_LOOPBACK_REGION = "us-east-1"
# An exception event of the stream: SageMaker itself failed. Any other, like ModelStreamError, tells of the model's side.
_BROKEN = "InternalStreamFailure"


class SageMakerTarget:
    """A `Target` with `num_threads` connections."""

    def __init__(self, spec: TargetSpec, capabilities: Capabilities, num_threads: int, timeout_s: float) -> None:
        self._spec = spec
        self._capabilities = capabilities
        num_threads = min(max(1, num_threads), MAX_THREADS)
        self._invoker = Invoker(spec, num_threads, timeout_s)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="sagemaker")

    def begin(self, origin_s: float) -> None:
        """See `driver.Target`."""
        self._invoker.origin_s = origin_s

    def with_history(self, history: Prompt | None, answer: str, prompt: Prompt) -> Prompt:
        """See `driver.Target`."""
        return with_history(history, answer, prompt, self._spec)

    async def send(self, request: Request, prompt: Prompt, record: Record, *, wants_text: bool) -> str:
        """See `driver.Target`."""
        body = msgspec.json.encode(body_of(request, prompt, self._spec, self._capabilities))
        # The thread's own record: what it still sees after it was given up must not change the one that is kept.
        seen = Record(record.number, record.scheduled_s, record.max_tokens, is_streamed=is_streamed(self._spec))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._invoker.invoke, body, seen, wants_text)
        finally:
            _copy_what_was_seen(seen, record)

    def close(self) -> None:
        """Take no more requests; threads that still run are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._invoker.close()


class Invoker:
    """boto3's client and what one call of it brings; may be used from several threads. Times in records are since `origin_s`."""

    def __init__(self, spec: TargetSpec, num_connections: int, timeout_s: float) -> None:
        if not spec.endpoint_name:
            raise BenchmarkError(f"--api {spec.api} needs the endpoint's name: --endpoint NAME")
        self._is_streamed = is_streamed(spec)
        self.origin_s = 0.0
        self._timeout_s = timeout_s
        self._parameters = {"EndpointName": spec.endpoint_name, "ContentType": "application/json"}
        self._sending = threading.local()
        self._client = _client(spec, num_connections, timeout_s)
        # Signing is over when this is called, and the connection comes next.
        self._client.meta.events.register("before-send.sagemaker-runtime", self._note_sending)

    def invoke(self, body: bytes, record: Record, wants_text: bool = False) -> str:
        """One call, noted in `record`; no failure is raised. Returns the text where it is wanted."""
        reader = AnswerReader(record, wants_text=wants_text)
        self._sending.record = record
        try:
            if self._is_streamed:
                self._read_stream(self._client.invoke_endpoint_with_response_stream(Body=body, **self._parameters), reader, record)
            else:
                answer = self._client.invoke_endpoint(Body=body, **self._parameters)
                record.status = answer["ResponseMetadata"]["HTTPStatusCode"]
                with contextlib.closing(answer["Body"]) as whole:
                    reader.whole(whole.read(), self._now_s())
        except (ClientError, BotoCoreError, OSError) as error:
            self._note_failure(record, reader, error)
        return reader.text

    def close(self) -> None:
        """Close the connections that are idle, and the others when they are done."""
        self._client.close()

    def _read_stream(self, answer: dict[str, Any], reader: AnswerReader, record: Record) -> None:
        record.status = answer["ResponseMetadata"]["HTTPStatusCode"]
        deadline_s = (record.sent_s or 0.0) + self._timeout_s
        # One that is left before its end is not used again: what is unread would come first.
        with contextlib.closing(answer["Body"]) as stream:
            for payload in _payloads(stream):
                now_s = self._now_s()
                reader.feed(payload, now_s)
                if record.error is not None or now_s > deadline_s:
                    return
        reader.end_of_stream(self._now_s())

    def _note_failure(self, record: Record, reader: AnswerReader, error: Exception) -> None:
        now_s, reason = self._now_s(), one_line(str(error) or type(error).__name__)
        if isinstance(error, EventStreamError):
            code = error.response.get("Error", {}).get("Code")
            fail(record, "broken" if code == _BROKEN else "reported", reason, now_s)
        elif isinstance(error, ClientError):
            answered = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            record.status = error.response.get("OriginalStatusCode", answered)
            fail(record, "refused", reason, now_s)
        elif isinstance(error, ReadTimeoutError | ConnectTimeoutError):
            fail(record, "timeout", reason, now_s)
        elif record.status is not None:
            reader.end_of_stream(now_s, reason)
        else:
            fail(record, "connection", reason, now_s)

    def _note_sending(self, **_: Any) -> None:
        self._sending.record.sent_s = self._now_s()

    def _now_s(self) -> float:
        return time.monotonic() - self.origin_s


def _payloads(stream: Any) -> Iterator[bytes]:
    for event in stream:
        part = event.get("PayloadPart")
        if part is not None:
            yield part["Bytes"]


def _client(spec: TargetSpec, num_connections: int, timeout_s: float) -> Any:
    is_loopback = spec.url is not None and urlsplit(spec.url).hostname in _LOOPBACK
    core = botocore.session.get_session()
    if is_loopback:
        # A machine's own role is not asked for: off AWS that is a wait for nobody, and a local server needs none.
        core.get_component("credential_provider").remove("iam-role")
    session = boto3.Session(botocore_session=core, region_name=spec.region)
    needs_dummies = is_loopback and session.get_credentials() is None
    config = Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=num_connections,
        read_timeout=timeout_s,
        connect_timeout=min(timeout_s, _CONNECT_TIMEOUT_S),
    )
    try:
        return session.client(
            "sagemaker-runtime",
            endpoint_url=spec.url,
            region_name=spec.region or session.region_name or (_LOOPBACK_REGION if is_loopback else None),
            config=config,
            **(_LOOPBACK_CREDENTIALS if needs_dummies else {}),
        )
    except (BotoCoreError, ValueError) as error:
        raise BenchmarkError(f"boto3 has no client for --api {spec.api}: {one_line(str(error))}") from error


def _copy_what_was_seen(seen: Record, record: Record) -> None:
    record.sent_s, record.status, record.is_streamed = seen.sent_s, seen.status, seen.is_streamed
    record.arrivals_s = list(seen.arrivals_s)
    record.arrival_tokens = None if seen.arrival_tokens is None else list(seen.arrival_tokens)[: len(record.arrivals_s)]
    record.prompt_tokens, record.output_tokens, record.cached_tokens = seen.prompt_tokens, seen.output_tokens, seen.cached_tokens
    record.finish_reason, record.ended_s = seen.finish_reason, seen.ended_s
    record.error, record.error_kind = seen.error, seen.error_kind
