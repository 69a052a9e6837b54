"""The function's own process, from its zip, between a real client and an imitation of AWS on loopback."""

import contextlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from container.conformance.runtime.event_stream import encode_exception, encode_message, encode_payload_part
from serving.aws.bedrock_answer import ChunkWriter
from serving.aws.deployment.lambda_package import build_package
from serving.aws.lambda_function.models import chunks, parts
from serving.errors import TierFailure
from tests.conftest import free_port

DEADLINE_S = 60
MODEL = "us.amazon.nova-micro-v1:0"
BODY = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 9}


def event(name, contents):
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, json.dumps(contents).encode())


START = event("messageStart", {"role": "assistant"})
WORDS = [event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in ("Good ", "day")]
END = [
    event("messageStop", {"stopReason": "end_turn"}),
    event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, "metrics": {"latencyMs": 1}}),
]


class Upstream:
    """AWS on loopback: what it was asked, and what it answers, up to `gate` at once and the rest when the test opens it."""

    def __init__(self):
        self.asked = []
        self.status, self.headers = 200, {"Content-Type": "application/vnd.amazon.eventstream"}
        self.before, self.after = [START, WORDS[0]], [WORDS[1], *END]
        self.gate = threading.Event()
        self.is_left = threading.Event()

    @contextlib.contextmanager
    def running(self):
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                upstream.asked.append((self.path, body, dict(self.headers)))
                self.send_response(upstream.status)
                for name, value in {**upstream.headers, "Transfer-Encoding": "chunked"}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self._write(b"".join(upstream.before))
                    upstream.gate.wait(DEADLINE_S)
                    for piece in upstream.after:
                        self._write(piece)
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    upstream.is_left.set()

            def _write(self, data):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            self.gate.set()
            server.shutdown()


@contextlib.contextmanager
def function(folder, url, **variables):
    """Started as Lambda's wrapper starts it: the script of the zip, and nothing of this checkout."""
    port = free_port()
    environ = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        # Both are Lambda's.
        "LAMBDA_TASK_ROOT": str(folder),
        "LAMBDA_RUNTIME_DIR": str(folder / "runtime"),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "SECRETEXAMPLE",
        "AWS_ENDPOINT_URL": url,
        "AWS_LWA_PORT": str(port),
        "TOKENPORT_TIMEOUT_S": "60",
        **variables,
    }
    with subprocess.Popen(["./run.sh"], cwd=folder, env=environ) as process:
        try:
            give_up = time.monotonic() + DEADLINE_S
            while True:
                try:
                    assert httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < give_up
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(io.BytesIO(build_package())) as archive:
        archive.extractall(folder)
    (folder / "run.sh").chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def test_what_lambdas_runtime_has_is_found(unpacked):
    runtime = unpacked / "runtime"
    runtime.mkdir()
    (runtime / "boto3.py").write_text("raise SystemExit(37)")
    environ = {"PATH": f"{unpacked}:{os.environ['PATH']}", "LAMBDA_TASK_ROOT": str(unpacked), "LAMBDA_RUNTIME_DIR": str(runtime)}
    started = subprocess.run(["./run.sh"], cwd=unpacked, env=environ, timeout=DEADLINE_S, check=False)
    shutil.rmtree(runtime)
    assert started.returncode == 37


@pytest.fixture(scope="module")
def upstreams():
    """The one upstream of the module: tests change what it says."""
    with contextlib.ExitStack() as stack:
        upstream = Upstream()
        yield upstream, stack.enter_context(upstream.running())


@pytest.fixture(scope="module")
def bedrock_url(unpacked, upstreams):
    with function(unpacked, upstreams[1], TOKENPORT_BEDROCK_MODEL=MODEL) as url:
        yield url


@pytest.fixture(scope="module")
def endpoint_url(unpacked, upstreams):
    with function(unpacked, upstreams[1], TOKENPORT_ENDPOINT="chat", TOKENPORT_COMPONENT="chat-b") as url:
        yield url


@pytest.fixture
def upstream(upstreams):
    upstreams[0].__init__()
    return upstreams[0]


@pytest.fixture
def client(bedrock_url):
    with httpx.Client(base_url=bedrock_url, timeout=DEADLINE_S) as client:
        yield client


def test_the_first_words_arrive_before_the_last_are_sent(client, upstream):
    with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = json.loads(next(lines).removeprefix("data: "))
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Good "}
        assert not upstream.gate.is_set()
        upstream.gate.set()
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    assert "day" in rest[0]


def test_it_is_asked_as_converse_is(client, upstream):
    upstream.gate.set()
    client.post("/v1/chat/completions", json=BODY | {"temperature": 0.5, "stop": "\n"})
    path, body, _ = upstream.asked[0]
    assert path == f"/model/{MODEL.replace(':', '%3A')}/converse-stream"
    assert json.loads(body) == {
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["\n"]},
    }


def test_openais_client_reads_it(bedrock_url, upstream):
    upstream.gate.set()
    with openai.OpenAI(base_url=f"{bedrock_url}/v1", api_key="none", max_retries=0) as asking:
        chunks = list(asking.chat.completions.create(model=MODEL, messages=BODY["messages"], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Good day"
    assert chunks[-1].usage.completion_tokens == 2


def test_a_whole_answer_is_one_json(client, upstream):
    upstream.gate.set()
    upstream.headers = {"Content-Type": "application/json"}
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    message = {"message": {"role": "assistant", "content": [{"text": "Good day"}]}}
    answer = {"output": message, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
    upstream.before, upstream.after = [json.dumps(answer).encode()], []
    body = client.post("/v1/chat/completions", json=BODY | {"stream": False}).json()
    assert body["choices"][0]["message"]["content"] == "Good day"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (429, "ThrottlingException", 429),
        (429, "ModelNotReadyException", 503),
        (400, "ValidationException", 400),
        (403, "AccessDeniedException", 502),
    ],
)
def test_what_aws_refuses_is_a_status_and_is_asked_once(client, upstream, status, code, told):
    upstream.gate.set()
    upstream.status, upstream.headers = status, {"x-amzn-ErrorType": code, "Content-Type": "application/json"}
    upstream.before, upstream.after = [b'{"message": "no"}'], []
    answer = client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == told
    assert code in answer.json()["error"]["message"]
    assert len(upstream.asked) == 1


def test_a_failure_after_the_first_word_ends_the_stream_with_an_error(client, upstream):
    upstream.gate.set()
    upstream.after = [encode_exception("throttlingException", b'{"message": "slow down"}')]
    lines = [line for line in client.post("/v1/chat/completions", json=BODY).text.splitlines() if line]
    assert "slow down" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]
    assert "data: [DONE]" not in lines


def test_a_stream_that_just_stops_is_a_failure(client, upstream):
    upstream.gate.set()
    upstream.after = []
    lines = [line for line in client.post("/v1/chat/completions", json=BODY).text.splitlines() if line]
    assert "without saying why" in lines[-1]


def test_when_the_client_leaves_nothing_more_is_read(client, upstream):
    upstream.after = [WORDS[1]] * 20_000
    with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        next(answer.iter_lines())
    upstream.gate.set()
    assert upstream.is_left.wait(DEADLINE_S)


class Events(list):
    is_closed = False

    def close(self):
        self.is_closed = True


def test_an_answer_that_outlasts_the_function_says_so_instead_of_being_cut():
    stream = Events([{"messageStart": {"role": "assistant"}}])
    with pytest.raises(TierFailure, match="in the function's time"):
        list(chunks("it", stream, ChunkWriter("it", MODEL, "1"), ends_at=time.monotonic() - 1))
    assert stream.is_closed


def test_an_answer_that_nobody_wants_any_more_is_closed():
    stream = Events([{"PayloadPart": {"Bytes": b"a"}}, {"PayloadPart": {"Bytes": b"b"}}])
    pieces = parts("it", stream, ends_at=time.monotonic() + DEADLINE_S)
    next(pieces)
    pieces.close()
    assert stream.is_closed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tools": []}, "tools"),
        ({"temperature": 1.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"model": "another"}, "model"),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(client, upstream, change, field):
    answer = client.post("/v1/chat/completions", json=BODY | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == field
    assert upstream.asked == []


def test_a_body_over_lambdas_limit_is_refused_unread(bedrock_url):
    connection = http.client.HTTPConnection(urlsplit(bedrock_url).netloc, timeout=DEADLINE_S)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(6 * 2**20 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_endpoints_answer_that_breaks_is_not_taken_for_whole(endpoint_url, upstream):
    upstream.gate.set()
    upstream.before, upstream.after = [encode_payload_part(b'{"a":')], [encode_exception("ModelStreamError", b"{}")]
    upstream.headers["X-Amzn-SageMaker-Content-Type"] = "application/json"
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{endpoint_url}/v1/chat/completions", content=b"{}")


@pytest.mark.parametrize(("status", "told"), [(400, 400), (422, 400), (429, 429), (503, 503), (500, 502)])
def test_what_an_endpoints_container_refuses_keeps_its_meaning(endpoint_url, upstream, status, told):
    upstream.gate.set()
    upstream.status, upstream.headers = 424, {"x-amzn-ErrorType": "ModelError", "Content-Type": "application/json"}
    upstream.before, upstream.after = [json.dumps({"Message": "Received error", "OriginalStatusCode": status}).encode()], []
    assert httpx.post(f"{endpoint_url}/v1/chat/completions", content=b"{}").status_code == told


def test_an_error_of_sagemaker_without_a_word_is_told_all_the_same(endpoint_url, upstream):
    upstream.gate.set()
    upstream.status, upstream.headers = 400, {"x-amzn-ErrorType": "ThrottlingException", "Content-Type": "application/json"}
    upstream.before, upstream.after = [b'{"message": null}'], []
    answer = httpx.post(f"{endpoint_url}/v1/chat/completions", content=b"{}")
    assert answer.status_code == 429
    assert "ThrottlingException" in answer.json()["error"]["message"]


def test_an_endpoint_is_passed_through_as_its_parts_come(endpoint_url, upstream):
    upstream.before, upstream.after = [encode_payload_part(b'data: {"a": 1}\n')], [encode_payload_part(b"\ndata: [DONE]\n\n")]
    upstream.headers["X-Amzn-SageMaker-Content-Type"] = "text/event-stream"
    sent = {"content": b"{}", "headers": {"Content-Type": "application/json"}}
    with httpx.stream("POST", f"{endpoint_url}/v1/chat/completions", **sent) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b'data: {"a": 1}\n'
        upstream.gate.set()
        assert b"".join(pieces) == b"\ndata: [DONE]\n\n"
    path, body, headers = upstream.asked[0]
    assert path == "/endpoints/chat/invocations-response-stream"
    assert body == b"{}"
    assert headers["X-Amzn-SageMaker-Inference-Component"] == "chat-b"
    assert answer.headers["Content-Type"] == "text/event-stream"
