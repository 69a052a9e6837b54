import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from serving.__main__ import main
from serving.errors import NoAnswer
from serving.memory_command import memory_command

GIB = 2**30
KINDS = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free", "total")
DEVICE = {"device": "cpu", "kv_cache_blocks": 10, "kv_cache_tokens": 1280, "kv_cache_sequences": 2.5, "weights_by_dtype": {"int8": GIB}}
BODY = {
    "devices": [{**DEVICE, "rank": rank, **{f"{kind}_bytes": (rank + 1) * GIB for kind in KINDS}} for rank in (0, 1)],
    "start_up_s": {"importing": 9.25, "loading weights": 1.5},
    "as_of_s": 0.1,
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        authorization = self.headers.get("Authorization")
        status, body = {
            "/memory": (200, BODY) if authorization == "Bearer k1" else (401, {"error": {"message": "no key"}}),
            "/behind/a/path/memory": (200, BODY),
            "/loading/memory": (503, {"error": {"message": "the server is starting (importing)"}}),
            "/other/memory": (404, {"error": "what?"}),
            "/list/memory": (200, []),
        }[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_table_has_a_column_a_rank_and_the_phases(url):
    lines = memory_command([url], {"TOKENPORT_API_KEY": "k1,k2"}).splitlines()
    assert lines[0].split("  ")[-1] == "rank 1 (cpu)"
    rows = {line.strip().rsplit("  ", 1)[0].split("  ")[0]: line.split() for line in lines[1:] if line}
    assert rows["int8"][1:] == ["1.00", "1.00"]
    assert rows["kv cache"][2:] == ["1.00", "2.00"]
    assert rows["kv cache tokens"][3:] == ["1280", "1280"]
    assert rows["loading weights"][2:] == ["1.5"]


def test_json_is_the_servers_answer(url):
    assert json.loads(memory_command(["--json", f"{url}/behind/a/path"], {})) == BODY


def test_an_address_needs_no_scheme(url):
    assert "rank 0" in memory_command([url.removeprefix("http://")], {"TOKENPORT_API_KEY": "k1"})


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "asks for an API key: set TOKENPORT_API_KEY"),
        ("/loading", "cannot say yet: the server is starting (importing)"),
        ("/other", "is no Tokenport server, or not one with GET /memory: it answered 404"),
        ("/list", "it answered 200"),
    ],
)
def test_an_answer_that_is_no_memory_is_told_as_what_it_is(url, path, told):
    with pytest.raises(NoAnswer) as failure:
        memory_command([url + path], {"TOKENPORT_API_KEY": "wrong"})
    assert told in str(failure.value)


@pytest.mark.parametrize("words", [["--jsn"], ["http://a", "http://b"]])
def test_other_words_are_refused_with_the_usage(words):
    with pytest.raises(NoAnswer, match=r"usage: tokenport memory \[URL\] \[--json\]"):
        memory_command(words, {})


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:eighty"])
def test_what_is_no_address_is_named(url):
    with pytest.raises(NoAnswer, match="no address of a server"):
        memory_command([url], {})


def test_where_nothing_answers_the_command_fails_with_one_line(capsys):
    assert main(["memory", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("tokenport: no server answers at http://127.0.0.1:1: ")
