"""boto3 and the `aws` command against the runtime, in front of a scripted container: errors, deadlines, broken streams, splits, leaving."""

import contextlib
import itertools
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from botocore import UNSIGNED
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError

from tests.container.runtime_support import (
    ENDPOINT,
    ROOT,
    Exchange,
    ScriptedContainer,
    aws,
    boto_client,
    runtime,
    scripted_container,
    until,
)
from tests.container.test_runtime_rules import bearer

TIMEOUT_S = 2.0
MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[ScriptedContainer, str]]:
    limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--ping-interval-s", "0.05")
    with scripted_container() as container, runtime(container.url, *limits) as url:
        yield container, url


@pytest.fixture(scope="module")
def hasty_url(shared) -> Iterator[str]:
    """A runtime with short deadlines."""
    with runtime(shared[0].url, "--invoke-timeout-s", str(TIMEOUT_S), "--stream-timeout-s", str(TIMEOUT_S)) as url:
        yield url


@pytest.fixture
def container(shared) -> ScriptedContainer:
    container, _ = shared
    fresh = ScriptedContainer(0)
    container.script, container.ping_status, container.exchanges = fresh.script, fresh.ping_status, []
    return container


@pytest.fixture
def url(shared) -> str:
    return shared[1]


@pytest.fixture
def boto(url):
    with boto_client(url) as client:
        yield client


@pytest.fixture
def hasty(hasty_url):
    with boto_client(hasty_url) as client:
        yield client


def invoke(boto, body: bytes = b'{"messages": []}', **parameters):
    return boto.invoke_endpoint(EndpointName=ENDPOINT, Body=body, **{"ContentType": "application/json"} | parameters)


def invoke_stream(boto, body: bytes = b'{"stream": true}', **parameters):
    parameters = {"ContentType": "application/json"} | parameters
    return boto.invoke_endpoint_with_response_stream(EndpointName=ENDPOINT, Body=body, **parameters)


def parts_of(answer) -> list[bytes]:
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def refused(call, code: str, status: int) -> dict:
    with pytest.raises(ClientError) as error:
        call()
    assert (error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    return error.value.response


# What passes.

SENT = {
    "Accept": "application/jsonlines",
    "CustomAttributes": "trace=1; c=2",
    "TargetModel": "model.tar.gz",
    "TargetVariant": "AllTraffic",
    "TargetContainerHostname": "second",
    "InferenceId": "id 1",
    "EnableExplanations": "`true`",
    "InferenceComponentName": "component-1",
    "SessionId": "NEW_SESSION",
    "PrefixAwareId": "tenant",
}
FORWARDED = {
    "accept": "application/jsonlines",
    "content-type": "application/json",
    "x-amzn-sagemaker-custom-attributes": "trace=1; c=2",
    "x-amzn-sagemaker-target-model": "model.tar.gz",
    "x-amzn-sagemaker-target-variant": "AllTraffic",
    "x-amzn-sagemaker-target-container-hostname": "second",
    "x-amzn-sagemaker-inference-id": "id 1",
    "x-amzn-sagemaker-enable-explanations": "`true`",
    "x-amzn-sagemaker-inference-component": "component-1",
    "x-amzn-sagemaker-session-id": "NEW_SESSION",
}
OF_HTTP = {"host", "content-length"}
ANSWERED = {
    "content_type": "text/plain",
    "x_amzn_sagemaker_custom_attributes": "trace=1",
    "x_amzn_sagemaker_new_session_id": "s-1; Expires=2030-01-01T00:00:00Z",
    "x_amzn_sagemaker_closed_session_id": "s-0",
    "x_secret": "internal",
}


def test_invoke_endpoint_carries_body_and_headers_both_ways_and_strips_the_rest(container, boto):
    container.script = lambda exchange: exchange.answer(b"an answer \xf0\x9f\x91\x8d", **ANSWERED)
    answer = invoke(boto, b'{"a": 1}', **SENT)
    assert answer.pop("Body").read() == b"an answer \xf0\x9f\x91\x8d"
    metadata = answer.pop("ResponseMetadata")
    assert answer == {
        "ContentType": "text/plain",
        "InvokedProductionVariant": "AllTraffic",
        "CustomAttributes": "trace=1",
        "NewSessionId": "s-1; Expires=2030-01-01T00:00:00Z",
        "ClosedSessionId": "s-0",
    }
    assert metadata["RequestId"]
    assert "x-secret" not in metadata["HTTPHeaders"]
    [exchange] = container.exchanges
    assert (exchange.method, exchange.path, exchange.body) == ("POST", "/invocations", b'{"a": 1}')
    assert {name: value for name, value in exchange.headers.items() if name not in OF_HTTP | {"connection"}} == FORWARDED


def test_a_streaming_call_renames_accept_and_content_type(container, boto):
    def script(exchange: Exchange) -> None:
        exchange.begin_stream("application/jsonlines", x_amzn_sagemaker_custom_attributes="trace=1", x_secret="internal")
        exchange.chunk(b"{}\n")
        exchange.chunk(b"")

    container.script = script
    unsupported = {"TargetModel", "EnableExplanations"}
    answer = invoke_stream(boto, **{name: value for name, value in SENT.items() if name not in unsupported} | {"SessionId": "s-1"})
    assert b"".join(parts_of(answer)) == b"{}\n"
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("application/jsonlines", "trace=1")
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
    assert "x-secret" not in answer["ResponseMetadata"]["HTTPHeaders"]
    missing = {"x-amzn-sagemaker-target-model", "x-amzn-sagemaker-enable-explanations"}
    expected = {name: value for name, value in FORWARDED.items() if name not in missing} | {"x-amzn-sagemaker-session-id": "s-1"}
    [exchange] = container.exchanges
    assert {name: value for name, value in exchange.headers.items() if name not in OF_HTTP | {"connection"}} == expected


def test_the_aws_command_invokes_the_endpoint(container, url, tmp_path):
    container.script = lambda exchange: exchange.answer(b'{"generated": true}', content_type="application/json")
    out = tmp_path / "answer.json"
    words = ["--endpoint-name", ENDPOINT, "--content-type", "application/json", "--inference-id", "id-1", "--body", '{"a": 1}', str(out)]
    ended = aws(url, "invoke-endpoint", *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {"ContentType": "application/json", "InvokedProductionVariant": "AllTraffic"}
    assert json.loads(out.read_text()) == {"generated": True}
    [exchange] = container.exchanges
    assert (exchange.body, exchange.headers["x-amzn-sagemaker-inference-id"]) == (b'{"a": 1}', "id-1")


def test_the_aws_command_shows_the_containers_error(container, url, tmp_path):
    container.script = lambda exchange: exchange.answer(b"field 'foo' is unknown", status=400)
    ended = aws(url, "invoke-endpoint", "--endpoint-name", ENDPOINT, "--body", "{}", str(tmp_path / "answer"))
    assert ended.returncode != 0
    assert "(ModelError)" in ended.stderr
    assert "Received client error (400) from primary with message \"field 'foo' is unknown\"" in ended.stderr
    assert not (tmp_path / "answer").exists()


# Splits.

EVENTS = [f'data: {{"text": "{word}"}}\n\n'.encode() for word in ("Grüße ", "日本語 ", "👍🏽 ", "plain ")] * 40


def stream_events(exchange: Exchange) -> None:
    exchange.begin_stream()
    for event in EVENTS:
        exchange.chunk(event)
    exchange.chunk(b"")


def test_parts_are_cut_inside_events_and_inside_characters(container, boto):
    container.script = stream_events
    parts = parts_of(invoke_stream(boto))
    assert b"".join(parts) == b"".join(EVENTS)

    def is_text(part: bytes) -> bool:
        try:
            part.decode()
        except UnicodeDecodeError:
            return False
        return True

    assert sum(not is_text(part) for part in parts) > 3
    assert sum(not part.endswith(b"\n\n") for part in parts) > len(parts) / 3
    assert sum(part.count(b"data:") > 1 for part in parts) > 3


def test_the_first_part_does_not_wait_for_the_second(container, boto):
    go_on = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.chunk(EVENTS[0])
        assert go_on.wait(10)
        exchange.chunk(b"")

    container.script = script
    received = b""
    for event in invoke_stream(boto)["Body"]:
        received += event["PayloadPart"]["Bytes"]
        if received == EVENTS[0]:
            assert not go_on.is_set()
            go_on.set()
    assert go_on.is_set()


def test_an_answer_that_is_not_chunked_is_streamed_too(container, boto):
    container.script = lambda exchange: exchange.answer(b'{"whole": true}', content_type="application/json")
    answer = invoke_stream(boto)
    assert b"".join(parts_of(answer)) == b'{"whole": true}'
    assert answer["ContentType"] == "application/json"


def test_a_client_that_reads_slowly_slows_the_container_down(container, url):
    """Only so much is on its way as buffers hold; the container's own send call blocks."""
    sent = [0]

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        for _ in range(2000):
            exchange.chunk(b"x" * 65536)
            sent[0] += 65536
        exchange.chunk(b"")

    container.script = script
    with runtime(container.url) as patient, boto_client(patient) as boto:
        body = invoke_stream(boto)["Body"]
        next(iter(body))
        before = -1
        while sent[0] != before:
            before = sent[0]
            time.sleep(1)
        assert 0 < before < 2000 * 65536 / 2
        body.close()


# What goes wrong in the container.


@pytest.mark.parametrize("call", [invoke, invoke_stream])
@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (429, "client"), (500, "server"), (503, "server")])
def test_an_error_of_the_container_is_a_model_error(container, boto, call, status, kind):
    container.script = lambda exchange: exchange.answer(b'{"error": {"message": "no"}}', status=status)
    said = refused(lambda: call(boto), "ModelError", 424)
    assert (said["OriginalStatusCode"], said["OriginalMessage"]) == (status, '{"error": {"message": "no"}}')
    assert said["LogStreamArn"] == "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/chat"
    assert said["Error"]["Message"].startswith(f'Received {kind} error ({status}) from primary with message "{{"error"')


@pytest.mark.parametrize("call", [invoke, invoke_stream])
def test_a_container_that_is_too_slow_is_a_model_error_with_status_0(container, hasty, call):
    left = []
    container.script = lambda exchange: left.append(exchange.left_within(10))
    started = time.monotonic()
    said = refused(lambda: call(hasty), "ModelError", 424)
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + 5
    assert said["OriginalStatusCode"] == 0
    assert said["OriginalMessage"].startswith("Your invocation timed out while waiting for a response from container primary.")
    assert until(lambda: left == [True])


def test_the_deadline_of_invoke_endpoint_holds_for_the_body_too(container, hasty):
    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        while not exchange.left_within(0.1):
            exchange.chunk(b"x")

    container.script = script
    assert refused(lambda: invoke(hasty), "ModelError", 424)["OriginalStatusCode"] == 0


@pytest.mark.parametrize("call", [invoke, invoke_stream])
def test_a_container_that_hangs_up_without_an_answer_is_a_model_error(container, boto, call):
    container.script = lambda exchange: exchange.connection.shutdown(socket.SHUT_RDWR)
    assert refused(lambda: call(boto), "ModelError", 424)["OriginalStatusCode"] == 0


def test_an_answer_that_ends_early_or_is_too_large_could_not_be_loaded(container, boto):
    container.script = lambda exchange: exchange.head(200, content_length="1000")
    said = refused(lambda: invoke(boto), "ModelError", 424)
    assert "could not load the entire response body" in said["Error"]["Message"]
    container.script = lambda exchange: exchange.answer(b"x" * (MAX_BODY_BYTES + 1))
    said = refused(lambda: invoke(boto), "ModelError", 424)
    assert "could not load the entire response body" in said["Error"]["Message"]


def reset(exchange: Exchange) -> None:
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.connection.close()


def drip(exchange: Exchange) -> None:
    while not exchange.left_within(0.05):
        exchange.chunk(b"x")


FAILURES = {
    "closes": (lambda exchange: exchange.connection.shutdown(socket.SHUT_RDWR), "ModelStreamError", "StreamBroken"),
    "resets": (reset, "ModelStreamError", "StreamBroken"),
    "stalls": (lambda exchange: exchange.left_within(10), "ModelStreamError", "ModelInvocationTimeExceeded"),
    "never ends": (drip, "ModelStreamError", "ModelInvocationTimeExceeded"),
    "speaks no HTTP": (lambda exchange: exchange.connection.sendall(b"nonsense\r\n"), "InternalStreamFailure", None),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_stream_that_fails_ends_in_an_exception_event_after_what_came(container, url, hasty_url, failure):
    break_off, exception_type, error_code = FAILURES[failure]

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.chunk(b"data: before\n\n")
        time.sleep(0.1)
        break_off(exchange)

    container.script = script
    # Short deadlines only where the deadline is what fails.
    through = hasty_url if error_code == "ModelInvocationTimeExceeded" else url
    with boto_client(through) as boto:
        received, error = until_it_fails(invoke_stream(boto)["Body"])
    assert received.rstrip(b"x") == b"data: before\n\n"
    assert error.response["Error"]["Code"] == exception_type
    # boto3 drops ErrorCode, so the frames are read as they are.
    messages = raw_messages(through)
    assert messages[-1].headers[":exception-type"] == exception_type
    assert json.loads(messages[-1].payload).get("ErrorCode") == error_code


def until_it_fails(body) -> tuple[bytes, EventStreamError]:
    received = b""
    with contextlib.closing(body):
        try:
            for event in body:
                received += event["PayloadPart"]["Bytes"]
        except EventStreamError as error:
            return received, error
    raise AssertionError("the stream ended well")


SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/sagemaker/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
    "Content-Type": "application/json",
}


def raw_messages(url: str) -> list:
    """The stream's frames, of a request whose signature is not even right."""
    buffer = EventStreamBuffer()
    answer = httpx.post(f"{url}/endpoints/{ENDPOINT}/invocations-response-stream", content=b"{}", headers=SIGNED, timeout=30)
    buffer.add_data(answer.content)
    return list(buffer)


def signed_request(url: str, operation: str, body: bytes, content_length: int | None = None) -> socket.socket:
    """A connection on which the request has been sent and nothing has been read."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    headers = SIGNED | {"Host": "x", "Content-Length": str(len(body) if content_length is None else content_length)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"POST /endpoints/{ENDPOINT}/{operation} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return connection


# Who leaves.


@pytest.mark.parametrize("operation", ["invocations", "invocations-response-stream"])
@pytest.mark.parametrize("has_begun", [False, True], ids=["before the first byte", "in the middle"])
def test_a_client_that_leaves_ends_the_containers_request(container, operation, has_begun):
    reached, left = threading.Event(), []

    def script(exchange: Exchange) -> None:
        if has_begun:
            exchange.begin_stream()
            exchange.chunk(b"data: 1\n\n")
        reached.set()
        left.append(exchange.left_within(10))

    container.script = script
    with runtime(container.url) as patient:
        with signed_request(patient, operation, b"{}"):
            assert reached.wait(10)
            time.sleep(0.2)
            assert left == []
        assert until(lambda: left == [True], 2)


def test_a_client_that_takes_nothing_is_cut_off_some_time_after_the_deadline(container, hasty_url):
    ended = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        try:
            while True:
                exchange.chunk(b"x" * 65536)
        finally:
            ended.set()

    container.script = script
    with signed_request(hasty_url, "invocations-response-stream", b"{}"):
        assert not ended.wait(TIMEOUT_S + 2)
        assert ended.wait(20)


def test_a_request_whose_body_does_not_come_is_given_up(container, hasty_url):
    with signed_request(hasty_url, "invocations", b"{}", content_length=10) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert container.exchanges == []


# What the platform refuses.


def test_an_unknown_endpoint_is_named(container, boto):
    said = refused(lambda: boto.invoke_endpoint(EndpointName="other", Body=b""), "ValidationError", 400)
    assert said["Error"]["Message"] == "Endpoint other of account 123456789012 not found."
    refused(lambda: boto.invoke_endpoint_with_response_stream(EndpointName="other", Body=b""), "ValidationError", 400)
    assert container.exchanges == []


@pytest.mark.parametrize("call", [invoke, invoke_stream])
@pytest.mark.parametrize(
    "parameters",
    [{"InferenceId": "x" * 65}, {"CustomAttributes": "x" * 1025}, {"SessionId": "under_score"}, {"TargetVariant": "other"}],
    ids=lambda parameters: next(iter(parameters)),
)
def test_parameters_that_break_the_models_rules_are_refused(container, boto, call, parameters):
    refused(lambda: call(boto, **parameters), "ValidationError", 400)
    assert container.exchanges == []


def test_a_session_cannot_be_created_by_a_streaming_call(container, boto):
    said = refused(lambda: invoke_stream(boto, SessionId="NEW_SESSION"), "ValidationError", 400)
    assert "Value 'NEW_SESSION' at 'sessionId'" in said["Error"]["Message"]
    assert container.exchanges == []


@pytest.mark.parametrize("call", [invoke, invoke_stream])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(container, boto, call):
    container.script = lambda exchange: exchange.answer(b"got it")
    call(boto, b"x" * MAX_BODY_BYTES)["Body"].close()
    assert len(container.exchanges[0].body) == MAX_BODY_BYTES
    said = refused(lambda: call(boto, b"x" * (MAX_BODY_BYTES + 1)), "413", 413)
    assert said["Error"]["Message"] == f"HTTP content length exceeded {MAX_BODY_BYTES} bytes."
    refused(lambda: call(boto, b"x" * 30_000_000), "413", 413)
    assert len(container.exchanges) == 1


def test_an_unsigned_request_is_refused_and_a_wrong_signature_is_not(container, url):
    with boto_client(url, signature_version=UNSIGNED) as unsigned:
        said = refused(lambda: invoke(unsigned), "MissingAuthenticationTokenException", 403)
    assert said["Error"]["Message"] == "Missing Authentication Token"
    assert httpx.post(f"{url}/endpoints/{ENDPOINT}/invocations", content=b"{}", headers=SIGNED).status_code == 200


@pytest.mark.parametrize("call", [invoke, invoke_stream])
def test_a_container_whose_ping_is_not_200_is_not_ready(container, boto, call):
    container.ping_status = 503
    assert until(lambda: error_code(lambda: call(boto)["Body"].close()) == "ModelNotReadyException")
    said = refused(lambda: call(boto), "ModelNotReadyException", 429)
    assert "/ping answered 503" in said["Error"]["Message"]
    container.ping_status = 200
    assert until(lambda: error_code(lambda: call(boto)["Body"].close()) is None)


def error_code(call) -> str | None:
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


@pytest.mark.parametrize("when", ["since before the runtime", "since the last ping"])
def test_a_container_that_is_gone_is_unavailable(when):
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as alive:
        container = alive.enter_context(scripted_container())
        if when == "since before the runtime":
            alive.close()
        boto = stack.enter_context(boto_client(stack.enter_context(runtime(container.url, "--ping-interval-s", "60"))))
        if when == "since the last ping":
            assert invoke(boto, b"here")["Body"].read() == b"here"
            alive.close()
        for call in (invoke, invoke_stream):
            refused(lambda call=call: call(boto), "ServiceUnavailable", 503)


def test_calls_over_the_concurrency_limit_are_throttled_until_a_stream_ends(container):
    container.script = stream_events
    with runtime(container.url, "--max-concurrency", "1") as url, boto_client(url) as boto:
        gate = threading.Event()

        def script(exchange: Exchange) -> None:
            exchange.begin_stream()
            exchange.chunk(b"data: 1\n\n")
            gate.wait(10)
            exchange.chunk(b"")

        container.script = script
        running = iter(invoke_stream(boto)["Body"])
        next(running)
        for call in (invoke, invoke_stream):
            said = refused(lambda call=call: call(boto), "ThrottlingException", 400)
            assert said["Error"]["Message"] is None
        gate.set()
        list(running)
        assert until(lambda: error_code(lambda: invoke_stream(boto)["Body"].close()) is None)


def test_boto3_retries_a_throttled_call_by_itself(container):
    container.script = lambda exchange: exchange.answer(b"at last")
    with runtime(container.url, "--throttle-rps", "2") as url, boto_client(url, retries={"mode": "standard", "max_attempts": 6}) as boto:
        answers = [invoke(boto) for _ in range(4)]
    assert [answer["Body"].read() for answer in answers] == [b"at last"] * 4
    assert sum(answer["ResponseMetadata"]["RetryAttempts"] for answer in answers) > 0


def test_operations_that_are_not_offered_say_so(container, url, boto):
    said = refused(
        lambda: boto.invoke_endpoint_async(EndpointName=ENDPOINT, InputLocation="s3://bucket/key"), "UnknownOperationException", 404
    )
    assert "not InvokeEndpointAsync" in said["Error"]["Message"]
    for method, path in itertools.product(("GET", "POST", "DELETE"), ("/", f"/endpoints/{ENDPOINT}/other", "/models")):
        answer = httpx.request(method, url + path, headers=SIGNED)
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert httpx.get(f"{url}/endpoints/{ENDPOINT}/invocations", headers=SIGNED).status_code == 404


def test_the_tool_starts_the_runtime_by_name_and_a_signal_ends_it_well(container):
    command = [sys.executable, "-m", "container.conformance", "runtime", "--target", container.url, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(rf"SageMaker runtime on http://127\.0\.0\.1:\d+: endpoint 'local' is {container.url}, --split-seed \d+\n", line)
        with boto_client(line.split()[3].rstrip(":")) as boto:
            assert boto.invoke_endpoint(EndpointName="local", Body=b"echo")["Body"].read() == b"echo"
        process.terminate()
        assert process.wait(10) == 0


# The OpenAI path.

CHAT = f"/endpoints/{ENDPOINT}/openai/v1/chat/completions"


def chat(url: str, path: str = CHAT, token: str | None = None, body: bytes = b'{"model": ""}') -> httpx.Response:
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.post(url + path, content=body, headers={"Content-Type": "application/json", "X-Other": "1"} | authorization, timeout=30)


def test_the_openai_path_passes_body_and_answer_through_as_they_are(container, url):
    container.script = lambda exchange: exchange.answer(b'{"error": {"param": "foo"}}', status=400, content_type="application/json")
    answer = chat(url, token=bearer())
    assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (400, {"error": {"param": "foo"}}, "application/json")
    container.script = stream_events
    component = f"/endpoints/{ENDPOINT}/inference-components/c-1/openai/v1/chat/completions"
    answer = chat(url, component, bearer())
    assert (answer.content, answer.headers["content-type"]) == (b"".join(EVENTS), "text/event-stream")
    first, second = container.exchanges
    assert (first.path, first.body, second.path) == ("/v1/chat/completions", b'{"model": ""}', "/v1/chat/completions")
    assert second.headers["x-amzn-sagemaker-inference-component"] == "c-1"
    assert not {"authorization", "x-other", "user-agent", "accept-encoding"} & first.headers.keys()


def test_the_openai_path_wants_a_bearer_token(container, url):
    answers = [chat(url), chat(url, token="sk-anything"), chat(url, token=bearer(service="bedrock"))]
    assert [answer.status_code for answer in answers] == [401, 403, 403]
    assert chat(url, CHAT.replace(ENDPOINT, "other", 1), bearer()).status_code == 400
    assert container.exchanges == []


def test_a_broken_stream_on_the_openai_path_is_a_connection_that_ends_early(container, url):
    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.chunk(b"data: 1\n\n")
        exchange.connection.shutdown(socket.SHUT_RDWR)

    container.script = script
    with pytest.raises(httpx.RemoteProtocolError):
        chat(url, token=bearer())
