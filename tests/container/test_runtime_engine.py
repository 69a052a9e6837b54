"""Client code as it would run against SageMaker, through the runtime to the real server."""

import codecs
import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import openai
import pytest
from botocore.exceptions import ClientError

from tests.container.runtime_support import ENDPOINT, aws, boto_client, runtime
from tests.container.test_runtime_rules import bearer

pytestmark = pytest.mark.engine
QUESTION = {"messages": [{"role": "user", "content": "What is the chemical symbol for water?"}], "temperature": 0}
JSON = "application/json"


@pytest.fixture(scope="module")
def url(server) -> Iterator[str]:
    with runtime(server.url) as url:
        yield url


@pytest.fixture
def boto(url):
    with boto_client(url) as client:
        yield client


def stream(boto, body: dict, **parameters) -> list[bytes]:
    content = json.dumps(body | {"stream": True})
    answer = boto.invoke_endpoint_with_response_stream(EndpointName=ENDPOINT, ContentType=JSON, Body=content, **parameters)
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Lines out of parts that end anywhere, in the middle of a character too: what every client of the platform needs."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
    for part in parts:
        *whole, rest = (rest + decoder.decode(part)).split("\n")
        yield from whole
    assert decoder.decode(b"", final=True) == rest == ""


def test_boto3_gets_a_chat_answer(boto):
    answer = boto.invoke_endpoint(EndpointName=ENDPOINT, ContentType=JSON, Body=json.dumps(QUESTION))
    assert answer["ContentType"] == JSON
    assert json.loads(answer["Body"].read())["choices"][0]["message"]["content"] == "The chemical symbol for water is H2O."


def test_boto3_streams_the_same_chat_answer_out_of_parts_that_end_anywhere(boto):
    parts = stream(boto, QUESTION)
    assert sum(not part.endswith(b"\n\n") for part in parts) > 3
    events = [line.removeprefix("data: ") for line in lines(parts) if line]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == "The chemical symbol for water is H2O."


def test_boto3_streams_json_lines_when_it_asks_for_them(boto):
    content = json.dumps(QUESTION | {"stream": True})
    accept = "application/jsonlines"
    answer = boto.invoke_endpoint_with_response_stream(EndpointName=ENDPOINT, ContentType=JSON, Accept=accept, Body=content)
    assert answer["ContentType"].startswith(accept)
    chunks = [json.loads(line) for line in lines(event["PayloadPart"]["Bytes"] for event in answer["Body"]) if line]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == "The chemical symbol for water is H2O."


def test_an_unknown_field_is_a_model_error_with_the_servers_own_words(boto):
    for call in (boto.invoke_endpoint, boto.invoke_endpoint_with_response_stream):
        with pytest.raises(ClientError) as error:
            call(EndpointName=ENDPOINT, ContentType=JSON, Body=json.dumps(QUESTION | {"temprature": 1}))
        said = error.value.response
        assert (said["Error"]["Code"], said["OriginalStatusCode"]) == ("ModelError", 400)
        assert json.loads(said["OriginalMessage"])["error"]["param"] == "temprature"


def test_a_session_is_made_used_and_closed(boto):
    def call(session: str, body: dict) -> dict:
        return boto.invoke_endpoint(EndpointName=ENDPOINT, ContentType=JSON, SessionId=session, Body=json.dumps(body))

    made = call("NEW_SESSION", {"requestType": "NEW_SESSION"})["NewSessionId"]
    identifier, _, expires = made.partition("; Expires=")
    assert datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) > datetime.now(UTC)
    assert "H2O" in json.loads(call(identifier, QUESTION)["Body"].read())["choices"][0]["message"]["content"]
    assert call(identifier, {"requestType": "CLOSE"})["ClosedSessionId"] == identifier
    with pytest.raises(ClientError) as error:
        call(identifier, QUESTION)
    assert error.value.response["Error"]["Code"] == "ModelError"


def test_closing_a_stream_stops_the_generation(boto, server):
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "stream": True})
    answer = boto.invoke_endpoint_with_response_stream(EndpointName=ENDPOINT, ContentType=JSON, Body=body)
    with contextlib.closing(answer["Body"]) as parts:
        next(iter(parts))
        assert server.running() == 1
    started = time.monotonic()
    while server.running():
        assert time.monotonic() - started < 5
        time.sleep(0.02)


def test_the_aws_command_gets_a_chat_answer(url, tmp_path):
    out = tmp_path / "answer.json"
    ended = aws(url, "invoke-endpoint", "--endpoint-name", ENDPOINT, "--content-type", JSON, "--body", json.dumps(QUESTION), str(out))
    assert ended.returncode == 0, ended.stderr
    assert "H2O" in json.loads(out.read_text())["choices"][0]["message"]["content"]


def test_the_openai_client_talks_to_the_endpoint_with_a_bearer_token(url):
    base_url = f"{url}/endpoints/{ENDPOINT}/openai/v1"
    with openai.OpenAI(base_url=base_url, api_key=bearer(), max_retries=0) as client:
        whole = client.chat.completions.create(model="", messages=QUESTION["messages"], temperature=0)
        assert whole.choices[0].message.content == "The chemical symbol for water is H2O."
        chunks = list(client.chat.completions.create(model="", messages=QUESTION["messages"], temperature=0, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The chemical symbol for water is H2O."
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            client.chat.completions.create(model="", messages=QUESTION["messages"], max_tokens=-1)
    with (
        openai.OpenAI(base_url=base_url, api_key="sk-of-another-service", max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.chat.completions.create(model="", messages=QUESTION["messages"])
