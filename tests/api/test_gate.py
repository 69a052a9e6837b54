"""Who may enter, and what is answered while the server is not ready."""

import pytest

from serving.api.lifecycle import Lifecycle

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


class TestWhileStarting:
    @pytest.fixture
    def lifecycle(self):
        return Lifecycle()

    async def test_ping_tells_phase_and_fraction(self, client, lifecycle):
        lifecycle.progress("loading weights", 0.25)
        answer = await client.get("/ping")
        assert answer.status_code == 503
        assert answer.json() == {"status": "starting", "phase": "loading weights", "fraction": 0.25}

    @pytest.mark.parametrize("path", ["/invocations", "/v1/chat/completions"])
    async def test_requests_are_asked_to_come_back(self, client, engine, lifecycle, path):
        lifecycle.progress("importing")
        answer = await client.post(path, json=CHAT)
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the server is starting (importing)"
        assert answer.headers["retry-after"] == "5"
        assert not engine.asked

    async def test_metrics_are_there_from_the_start(self, client):
        assert (await client.get("/metrics")).status_code == 200


async def test_ping_is_200_and_empty_when_ready(client):
    answer = await client.get("/ping")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_draining_refuses_new_requests_with_a_time_to_retry(client, lifecycle):
    lifecycle.drain("received SIGTERM")
    answer = await client.post("/invocations", json=CHAT)
    assert answer.status_code == 503
    assert "draining" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "1"
    assert (await client.get("/ping")).json()["reason"] == "received SIGTERM"


async def test_a_dead_engine_is_told_by_ping(client, lifecycle):
    lifecycle.fail("the engine died")
    answer = await client.get("/ping")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "the engine died"


class TestApiKey:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_API_KEY": "first,second"}

    @pytest.mark.parametrize("path", ["/invocations", "/v1/chat/completions", "/metrics", "/health", "/openapi.json", "/nothing"])
    async def test_every_route_but_ping_wants_a_key(self, client, path):
        answer = await client.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "AuthenticationError"
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_ping_is_open(self, client):
        assert (await client.get("/ping")).status_code == 200

    @pytest.mark.parametrize("header", ["Bearer first", "bearer second"])
    async def test_either_key_opens(self, client, header):
        assert (await client.get("/v1/models", headers={"Authorization": header})).status_code == 200

    @pytest.mark.parametrize("header", ["Bearer third", "Bearer ", "first", "Basic first", "Bearer firs", "Bearer first,second"])
    async def test_nothing_else_does(self, client, header):
        assert (await client.get("/v1/models", headers={"Authorization": header})).status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/tokenize", "/detokenize", "/version"])
async def test_the_engines_inference_routes_are_its_own(client, path):
    assert (await client.get(path)).json() == {"engine": path}


@pytest.mark.parametrize(
    "path", ["/scale_elastic_ep", "/inference/v1/generate", "/sleep", "/collective_rpc", "/load", "/v1", "/tokenize/x"]
)
async def test_its_other_routes_are_not_reachable(client, path):
    answer = await client.post(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"there is no route POST {path}"


async def test_the_wrong_method_names_the_right_one(client):
    answer = await client.get("/invocations")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "use POST" in answer.json()["error"]["message"]
