"""Batches and sessions against the real engine."""

import json

import pytest

from tests.process.test_disconnect import wait_running

pytestmark = pytest.mark.engine
LINES = {"Content-Type": "application/jsonlines"}
NUM_LINES = 50
BAD = {7: b'{"prompt": "x", "temprature": 1}', 31: b"{"}


def test_a_batch_answers_each_line_in_order_and_loses_none_for_two_bad_ones(http, server):
    def line(number: int) -> bytes:
        # As many tokens as its number tells, so that each answer tells whose it is, and later lines are ready before earlier ones.
        return json.dumps({"prompt": "Once upon a time", "max_tokens": NUM_LINES - number, "ignore_eos": True}).encode()

    content = b"\n".join(BAD.get(number) or line(number) for number in range(NUM_LINES))
    answer = http.post("/invocations", content=content, headers=LINES)
    assert answer.status_code == 200
    assert (answer.headers["content-type"], "transfer-encoding" in answer.headers) == ("application/jsonlines", False)
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert len(results) == NUM_LINES
    for number, result in enumerate(results):
        if number in BAD:
            assert result["error"]["code"] == 400
        else:
            assert result["usage"]["completion_tokens"] == NUM_LINES - number
    assert results[7]["error"]["param"] == "temprature"
    wait_running(server, 0, 5)


def test_a_session_from_its_opening_to_its_close(http):
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    header = "X-Amzn-SageMaker-Session-Id"
    answer = http.post("/invocations", json=chat, headers={header: "NEW_SESSION"})
    assert answer.json()["usage"]["completion_tokens"] <= 3
    identifier = answer.headers["X-Amzn-SageMaker-New-Session-Id"].partition(";")[0]
    assert http.post("/invocations", json=chat, headers={header: identifier}).status_code == 200
    closed = http.post("/invocations", json={"requestType": "CLOSE"}, headers={header: identifier})
    assert closed.headers["X-Amzn-SageMaker-Closed-Session-Id"] == identifier
    assert http.post("/invocations", json=chat, headers={header: identifier}).status_code == 404


def test_execution_parameters(http):
    assert http.get("/execution-parameters").json()["BatchStrategy"] == "MULTI_RECORD"
