"""Sessions as SageMaker's clients see them: headers in, headers out; and how they end."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from serving.api.sessions import Sessions
from serving.errors import InvalidRequest, UnknownSession
from tests.api.conftest import ScriptedChunks

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ID, NEW, CLOSED = (f"x-amzn-sagemaker-{name}" for name in ("session-id", "new-session-id", "closed-session-id"))
# NewSessionResponseHeader in botocore's sagemaker-runtime/2017-05-13/service-2.json
PATTERN = re.compile(r"^([a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\sExpires=([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)$")


def opened(answer) -> str:
    match = PATTERN.match(answer.headers[NEW])
    assert match, answer.headers[NEW]
    assert len(answer.headers[NEW]) <= 256
    return match[1]


async def open_session(client) -> str:
    return opened(await client.post("/invocations", json={"requestType": "NEW_SESSION"}, headers={ID: "NEW_SESSION"}))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({ID: "NEW_SESSION"}, {"requestType": "NEW_SESSION"}),
        ({}, {"requestType": "NEW_SESSION"}),
        ({ID: "NEW_SESSION"}, {}),
    ],
    ids=["header and body", "body", "header"],
)
async def test_a_session_is_opened_without_asking_the_engine(client, engine, headers, body):
    answer = await client.post("/invocations", json=body, headers=headers)
    assert answer.status_code == 200
    identifier = opened(answer)
    expires = answer.headers[NEW].partition("Expires=")[2]
    assert answer.json() == {"session_id": identifier, "expires": expires}
    remaining = datetime.fromisoformat(expires) - datetime.now(UTC)
    assert timedelta(seconds=1195) < remaining <= timedelta(seconds=1200)
    assert not engine.asked


async def test_a_session_lives_from_its_opening_to_its_close(client, engine):
    identifier = await open_session(client)
    answer = await client.post("/invocations", json=CHAT, headers={ID: identifier})
    assert (answer.status_code, answer.content) == (200, engine.answer)
    assert NEW not in answer.headers
    answer = await client.post("/invocations", json={"requestType": "CLOSE"}, headers={ID: identifier})
    assert (answer.status_code, answer.headers[CLOSED]) == (200, identifier)
    assert answer.json() == {"closed_session_id": identifier}
    for body in (CHAT, {"requestType": "CLOSE"}):
        answer = await client.post("/invocations", json=body, headers={ID: identifier})
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "X-Amzn-SageMaker-Session-Id"
    assert len(engine.asked) == 1


@pytest.mark.parametrize("body", [CHAT, CHAT | {"requestType": "NEW_SESSION"}], ids=["header", "header and body"])
async def test_a_session_is_opened_by_its_first_request(client, engine, body):
    answer = await client.post("/invocations", json=body, headers={ID: "NEW_SESSION"})
    assert (answer.status_code, answer.content) == (200, engine.answer)
    assert engine.asked[0][1] == CHAT
    assert (await client.post("/invocations", json=CHAT, headers={ID: opened(answer)})).status_code == 200


async def test_a_session_may_be_used_by_streams_and_batches(client, engine):
    identifier = await open_session(client)
    assert (
        await client.post("/invocations", content=b'{"prompt": "hi"}', headers={ID: identifier, "content-type": "application/jsonlines"})
    ).status_code == 200
    engine.answer = ScriptedChunks(["{}"])
    assert (await client.post("/invocations", json=CHAT | {"stream": True}, headers={ID: identifier})).text.endswith("[DONE]\n\n")


async def test_a_first_request_that_is_refused_opens_no_session(client, app, engine):
    engine.answer = InvalidRequest("no")
    answer = await client.post("/invocations", json=CHAT, headers={ID: "NEW_SESSION"})
    assert answer.status_code == 400
    assert NEW not in answer.headers
    assert len(app.state.sessions) == 0


@pytest.mark.parametrize("identifier", ["unknown", "../../etc/passwd", "", "x" * 5000, "0" * 32])
async def test_an_unknown_session_is_refused_and_told_how_to_start_one(client, engine, identifier):
    answer = await client.post("/invocations", json=CHAT, headers={ID: identifier})
    assert answer.status_code == 404
    assert "NEW_SESSION" in answer.json()["error"]["message"]
    assert not engine.asked


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, {"requestType": "CLOSE"}, "name the session"),
        ({ID: "NEW_SESSION"}, {"requestType": "CLOSE"}, "name the session"),
        ({ID: "abc"}, {"requestType": "NEW_SESSION"}, "leave X-Amzn-SageMaker-Session-Id out"),
        ({ID: "abc"}, CHAT | {"requestType": "CLOSE"}, "remove 'messages'"),
        ({}, CHAT | {"requestType": "OPEN"}, "expected NEW_SESSION or CLOSE, got 'OPEN'"),
        ({}, CHAT | {"requestType": 1}, "expected NEW_SESSION or CLOSE, got '1'"),
    ],
)
async def test_a_contradiction_is_refused(client, engine, headers, body, message):
    answer = await client.post("/invocations", json=body, headers=headers)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert not engine.asked


class TestTtl:
    @pytest.fixture
    def environ(self):
        return {"TOKENPORT_SESSION_TTL_S": "60"}

    async def test_is_a_setting(self, client):
        answer = await client.post("/invocations", json={"requestType": "NEW_SESSION"})
        assert datetime.fromisoformat(answer.json()["expires"]) - datetime.now(UTC) <= timedelta(seconds=60)


class TestSessions:
    @pytest.fixture
    def now(self):
        return [1000.0]

    @pytest.fixture
    def sessions(self, now):
        return Sessions(ttl_s=60, capacity=3, clock=lambda: now[0])

    def test_expire_when_they_said_also_if_they_are_used(self, sessions, now):
        identifier, _ = sessions.open()
        now[0] += 59
        sessions.use(identifier)
        now[0] += 1
        with pytest.raises(UnknownSession):
            sessions.use(identifier)
        assert len(sessions) == 0

    def test_that_expired_make_room(self, sessions, now):
        for _ in range(3):
            sessions.open()
        now[0] += 60
        sessions.open()
        assert len(sessions) == 1

    def test_of_too_many_the_least_recently_used_goes(self, sessions):
        first, second, third = (sessions.open()[0] for _ in range(3))
        sessions.use(first)
        fourth, _ = sessions.open()
        for identifier in (first, third, fourth):
            sessions.use(identifier)
        with pytest.raises(UnknownSession):
            sessions.use(second)

    def test_have_ids_that_do_not_repeat_and_cannot_be_guessed(self, sessions):
        identifiers = {sessions.open()[0] for _ in range(1000)}
        assert len(identifiers) == 1000
        assert all(re.fullmatch("[0-9a-f]{32}", identifier) for identifier in identifiers)
