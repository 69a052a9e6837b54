"""What the probe finds out about servers of every kind, and how little it asks."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.client.probe import probe
from serving.errors import BenchmarkError
from tests.benchmarks.driving import spec_of
from tests.benchmarks.stub import running_stub

CONTINUOUS = "stream_options.continuous_usage_stats"


async def test_a_server_that_takes_everything():
    with running_stub() as stub:
        found = await probe(spec_of(stub.url))
        assert (found.base_path, found.model, found.notes) == ("/v1", "stub", ())
        assert found.accepts_continuous_usage
        assert found.accepts_ignore_eos
        assert found.accepts_token_ids
        assert found.has_tokenize
        assert await probe(spec_of(f"{stub.url}/v1/")) == found
        chat = await probe(spec_of(stub.url, "chat"))
        assert not chat.accepts_token_ids
        bodies = [exchange["body"] for exchange in stub.received()]
    assert len(bodies) == 5
    assert all(body["max_tokens"] == 1 for body in bodies)


@pytest.mark.parametrize(
    ("refused", "usage", "continuous", "ignore_eos"),
    [
        ([CONTINUOUS], True, False, True),
        (["ignore_eos"], True, True, False),
        ([CONTINUOUS, "ignore_eos"], True, False, False),
        (["stream_options"], False, False, True),
        (["stream_options", "ignore_eos"], False, False, False),
    ],
)
async def test_fields_that_the_server_refuses_are_found_and_told(refused, usage, continuous, ignore_eos):
    with running_stub(refused_fields=refused) as stub:
        found = await probe(spec_of(stub.url))
        assert len(stub.received()) <= 7
    assert (found.accepts_stream_options, found.accepts_continuous_usage, found.accepts_ignore_eos) == (usage, continuous, ignore_eos)
    [note] = found.notes
    assert note.startswith("the server refuses ")
    assert ("ignore_eos" in note) == (not ignore_eos)


async def test_a_server_with_nothing_but_its_route_will_do():
    with running_stub(routes=["/completions"]) as stub:
        found = await probe(spec_of(stub.url))
    assert (found.base_path, found.model, found.has_tokenize) == ("", None, False)


async def test_a_server_that_answers_everything_alike_will_do():
    class Same(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps({"choices": [{"text": "a", "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            found = await probe(spec_of(f"http://127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()
            thread.join(10)
    assert (found.base_path, found.model, found.has_tokenize, found.notes) == ("/v1", None, False, ())


@pytest.mark.parametrize("status", [429, 503])
async def test_an_overloaded_server_is_left_to_the_run(status):
    with running_stub(status=status) as stub:
        assert (await probe(spec_of(stub.url))).notes == ()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"status": 401}, r"refuses access \(HTTP 401: scripted refusal"),
        ({"routes": ["/elsewhere"]}, r"does not generate \(HTTP 404"),
        ({"refused_fields": ["prompt"]}, "refuses even a tiny request"),
    ],
)
async def test_what_cannot_be_measured_is_told(script, said):
    with running_stub(**script) as stub, pytest.raises(BenchmarkError, match=said):
        await probe(spec_of(stub.url))


async def test_nothing_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(BenchmarkError, match="nothing answers at http"):
            await probe(spec_of(f"http://127.0.0.1:{unused.getsockname()[1]}"))
