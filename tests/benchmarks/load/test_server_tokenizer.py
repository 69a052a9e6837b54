"""Token counts over a real socket: the routes as vLLM has them, and servers that have none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load.build import LoadOptions, build_plan
from benchmarks.load.lengths import fixed
from benchmarks.load.tokenizers import EstimatingTokenizer, ServerTokenizer, find_tokenizer, http_post
from serving.errors import BenchmarkError

TEMPLATE_TOKENS = 7


class Routes(BaseHTTPRequestHandler):
    """Four characters a token, and seven for the template. Keeps connections, as real servers do, and asks for a key."""

    protocol_version = "HTTP/1.1"
    tokenizer = EstimatingTokenizer()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, told = self.answer(body) if self.headers["Authorization"] == "Bearer k" else (401, {})
        sent = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def answer(self, body):
        if body["model"] != "m":
            return 404, {}
        if self.path == "/detokenize":
            return 200, {"prompt": self.tokenizer.decode(body["tokens"])}
        if "messages" in body:
            return 200, {"count": TEMPLATE_TOKENS + sum(len(self.tokenizer.encode(said["content"])) for said in body["messages"])}
        tokens = self.tokenizer.encode(body["prompt"])
        return 200, {"tokens": tokens, "count": len(tokens)}

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Routes) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        serving.join(timeout=10)


def test_prompts_are_counted_by_the_server(url):
    tokenizer = find_tokenizer(None, http_post(url, {"Authorization": "Bearer k"}), "m")
    assert isinstance(tokenizer, ServerTokenizer)
    options = LoadOptions(prompt_form="messages", input_length=fixed(40), num_requests=5)
    sent = [request.prompt[0]["content"] for request in build_plan(options, tokenizer).requests]
    assert [len(Routes.tokenizer.encode(content)) for content in sent] == [40 - TEMPLATE_TOKENS] * 5
    assert len(set(sent)) == 5


def test_a_server_without_the_routes_leaves_an_estimate(url):
    assert isinstance(find_tokenizer(None, http_post(url), "m"), EstimatingTokenizer)


def test_a_refusal_is_told_in_one_line(url):
    with pytest.raises(BenchmarkError) as error:
        http_post(url)("/tokenize", {"model": "m", "prompt": "a"})
    assert "401" in str(error.value)
    assert str(error.value).endswith("; --tokenizer DIR counts with a tokenizer.json instead")
    assert "\n" not in str(error.value)
