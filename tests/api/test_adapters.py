"""The routes under `/adapters` and the choice of an adapter, around adapters that are only names. Real ones are in tests/process."""

import json

import pytest

from serving.engine.interface import Adapter
from serving.errors import InsufficientStorage, UnknownAdapter, UnknownModel

HEADER = "X-Amzn-SageMaker-Adapter-Identifier"


class ScriptedAdapters:
    """Remembers what it was asked; knows the names in `known`."""

    def __init__(self, *known: str) -> None:
        self.known = {name: Adapter(name, f"/opt/ml/{name}", True, False, 0) for name in known}
        self.registered: list[tuple] = []
        self.made_ready: list[str] = []
        self.error: Exception | None = None

    def list(self):
        return list(self.known.values())

    async def register(self, name, src, *, preload, pin):
        if self.error is not None:
            raise self.error
        self.registered.append((name, src, preload, pin))

    async def remove(self, name):
        if name not in self.known:
            raise UnknownAdapter(f"no {name}")
        del self.known[name]

    async def make_ready(self, model):
        self.made_ready.append(model)
        if self.error is not None:
            raise self.error
        if model not in self.known:
            raise UnknownModel(f"no {model}")


@pytest.fixture
def adapters(engine) -> ScriptedAdapters:
    engine.adapters = ScriptedAdapters("one", "two")
    return engine.adapters


@pytest.fixture
def passed_on(engine) -> list[bytes]:
    """Bodies as the engine's own routes get them."""
    bodies: list[bytes] = []

    async def openai_app(scope, receive, send):
        message = await receive()
        assert dict(scope["headers"])[b"content-length"] == str(len(message["body"])).encode()
        bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    engine.openai_app = openai_app
    return bodies


async def test_registering_says_so_in_the_standards_words(client, adapters):
    answer = await client.post("/adapters", json={"name": "three", "src": "/opt/ml/three"})
    assert (answer.status_code, answer.text) == (200, "Adapter three registered")
    assert adapters.registered == [("three", "/opt/ml/three", True, False)]


async def test_the_alias_is_what_the_answer_calls_the_adapter(client, adapters):
    headers = {"X-Amzn-SageMaker-Adapter-Alias": "nice name"}
    answer = await client.post("/adapters", json={"name": "one", "src": "/s", "preload": False, "pin": True}, headers=headers)
    assert answer.text == "Adapter nice name registered"
    assert adapters.registered == [("one", "/s", False, True)]
    assert (await client.delete("/adapters/one", headers=headers)).text == "Adapter nice name unregistered"


async def test_query_parameters_do_where_there_is_no_body(client, adapters):
    answer = await client.post("/adapters", params={"name": "one", "src": "/s", "preload": "False", "pin": "true"})
    assert answer.status_code == 200
    assert adapters.registered == [("one", "/s", False, True)]
    answer = await client.post("/adapters", params={"name": "one", "src": "/s", "pin": "maybe"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "pin")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"src": "/s"}, "name"),
        ({"name": "", "src": "/s"}, "name"),
        ({"name": "a"}, "src"),
        ({"name": "a", "src": ""}, "src"),
        ({"name": "a", "src": 3}, "src"),
        ({"name": "a", "src": "/s", "pin": "true"}, "pin"),
        ({"name": "a", "src": "/s", "preloaded": True}, "preloaded"),
    ],
)
async def test_a_registration_that_is_wrong_names_the_field(client, adapters, body, param):
    answer = await client.post("/adapters", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert adapters.registered == []


async def test_an_empty_registration_is_a_400(client, adapters):
    assert (await client.post("/adapters")).status_code == 400


async def test_errors_of_the_engine_keep_their_status(client, adapters):
    adapters.error = InsufficientStorage("full")
    answer = await client.post("/adapters", json={"name": "a", "src": "/s"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (507, "full")


async def test_the_list_comes_in_pages(client, adapters):
    one, two = ({"name": name, "src": f"/opt/ml/{name}", "pin": False, "loaded": True, "running": 0} for name in ("one", "two"))
    assert (await client.get("/adapters")).json() == {"adapters": [one, two]}
    assert (await client.get("/adapters?limit=1")).json() == {"adapters": [one], "nextPageToken": "1"}
    assert (await client.get("/adapters?limit=1&next_page_token=1")).json() == {"adapters": [two]}
    assert (await client.get("/adapters/two")).json() == two


async def test_what_is_not_there_is_a_404(client, adapters):
    answer = await client.get("/adapters/nine")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "there is no adapter 'nine'; registered: one, two")
    assert (await client.delete("/adapters/nine")).status_code == 404


@pytest.mark.parametrize("page", ["limit=0", "limit=x", "next_page_token=-1"])
async def test_a_page_that_cannot_be_is_refused_in_the_usual_form(client, adapters, page):
    answer = await client.get(f"/adapters?{page}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == page.partition("=")[0]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/adapters"), ("GET", "/adapters/a"), ("POST", "/adapters"), ("DELETE", "/adapters/a")]
)
async def test_without_lora_the_routes_say_what_switches_it_on(client, method, path):
    answer = await client.request(method, path)
    assert answer.status_code == 501
    assert "TOKENPORT_ENABLE_LORA" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/invocations", "/v1/chat/completions"])
async def test_without_lora_a_header_that_chooses_an_adapter_is_not_passed_over(client, path):
    answer = await client.post(path, json={"prompt": "x"}, headers={HEADER: "one"})
    assert answer.status_code == 501


async def test_the_header_becomes_the_model(client, engine, adapters):
    await client.post("/invocations", json={"prompt": "x"}, headers={HEADER: "one"})
    await client.post("/invocations", json={"prompt": "x", "model": None}, headers={HEADER: "one"})
    await client.post("/invocations", json={"prompt": "x", "model": "one"}, headers={HEADER: "one"})
    await client.post("/invocations", json={"prompt": "x", "model": "two"})
    assert [body["model"] for _, body, _ in engine.asked] == ["one", "one", "one", "two"]


async def test_the_header_holds_for_one_request_only(client, engine, adapters):
    await client.post("/invocations", json={"prompt": "x"}, headers={HEADER: "one"})
    await client.post("/invocations", json={"prompt": "x"})
    assert [body.get("model") for _, body, _ in engine.asked] == ["one", None]


async def test_the_header_holds_for_every_line_of_a_batch(client, engine, adapters):
    lines = '{"prompt": "a"}\n{"prompt": "b", "model": "two"}\n'
    answer = await client.post("/invocations", content=lines, headers={HEADER: "one", "Content-Type": "application/jsonlines"})
    assert [body["model"] for _, body, _ in engine.asked] == ["one"]
    assert "names 'one'" in answer.text.splitlines()[1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x", "model": "two"}, "model"),
        ({"inputs": "x", "model": "two"}, "model"),
        ({"inputs": "x", "parameters": {"adapter_id": "two"}}, "parameters.adapter_id"),
    ],
)
async def test_a_body_that_names_another_is_a_contradiction(client, engine, adapters, body, param):
    answer = await client.post("/invocations", json=body, headers={HEADER: "one"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert engine.asked == []


async def test_on_the_engines_routes_the_header_is_written_into_the_body(client, adapters, passed_on):
    await client.post("/v1/chat/completions", json={"messages": [], "model": None}, headers={HEADER: "one"})
    assert json.loads(passed_on[0]) == {"messages": [], "model": "one"}
    assert adapters.made_ready == ["one"]


async def test_a_body_without_header_passes_byte_by_byte(client, adapters, passed_on):
    for raw in (b'{"model":  "two"}', b'{"prompt": "x"}', b"no json", b"[]"):
        await client.post("/v1/completions", content=raw)
    assert passed_on == [b'{"model":  "two"}', b'{"prompt": "x"}', b"no json", b"[]"]
    assert adapters.made_ready == ["two"]


@pytest.mark.parametrize("raw", [b"no json", b"[]", b""])
async def test_a_header_without_an_object_to_go_into_is_refused(client, adapters, passed_on, raw):
    answer = await client.post("/v1/completions", content=raw, headers={HEADER: "one"})
    assert answer.status_code == 400
    assert passed_on == []


async def test_an_adapter_that_is_not_there_is_told_before_the_engine_is_asked(client, adapters, passed_on):
    for body, headers in (({"model": "nine"}, {}), ({}, {HEADER: "nine"})):
        assert (await client.post("/v1/completions", json=body, headers=headers)).status_code == 404
    assert passed_on == []


@pytest.mark.parametrize("name", ["load_lora_adapter", "unload_lora_adapter"])
@pytest.mark.parametrize("slash", ["", "/", "//"])
async def test_vllms_own_adapter_routes_are_not_passed_on(client, adapters, passed_on, name, slash):
    answer = await client.post(f"/v1/{name}{slash}", json={"lora_name": "a", "lora_path": "/etc"})
    assert (answer.status_code, passed_on) == (404, [])


@pytest.mark.parametrize("environ", [{"TOKENPORT_API_KEY": "secret"}])
async def test_the_routes_ask_for_the_api_key(client, adapters, environ):
    for method, path in (("GET", "/adapters"), ("POST", "/adapters"), ("DELETE", "/adapters/one")):
        assert (await client.request(method, path)).status_code == 401
    assert list(adapters.known) == ["one", "two"]
