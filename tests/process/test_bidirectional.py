"""Text chat over the socket, against the real engine."""

import json

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.process.test_disconnect import LONG, wait_running

pytestmark = pytest.mark.engine
CHAT = {"messages": [{"role": "user", "content": "What is the chemical symbol for water?"}], "temperature": 0, "max_tokens": 20}
DEADLINE_S = 60


@pytest.fixture
def client(server):
    with connect(f"{server.url.replace('http', 'ws')}/invocations-bidirectional-stream") as client:
        yield client


def send(client: ClientConnection, **frame) -> None:
    client.send(json.dumps(frame))


def frames_until(client: ClientConnection, identifier: str, kind: str) -> list[dict]:
    """The frames up to and with the one that is named."""
    frames = []
    while not frames or (frames[-1]["id"], frames[-1]["type"]) != (identifier, kind):
        frames.append(json.loads(client.recv(timeout=DEADLINE_S)))
        assert frames[-1]["type"] != "error" or kind == "error", frames[-1]
    return frames


def text_of(frames: list[dict], identifier: str) -> str:
    chunks = [frame["data"] for frame in frames if frame["id"] == identifier and frame["type"] == "chunk"]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_a_chat_says_what_it_says_by_http(client, http):
    whole = http.post("/invocations", json=CHAT).json()["choices"][0]["message"]["content"]
    assert "H2O" in whole.replace("₂", "2")
    send(client, id="first", **CHAT)
    assert text_of(frames_until(client, "first", "done"), "first") == whole
    # And goes on: what was said is in the next request, the socket keeps nothing.
    messages = [*CHAT["messages"], {"role": "assistant", "content": whole}, {"role": "user", "content": "And for salt?"}]
    send(client, id="second", **CHAT | {"messages": messages})
    assert text_of(frames_until(client, "second", "done"), "second")


def test_chunks_of_several_chats_come_as_they_are_made(client):
    for name in ("a", "b"):
        send(client, id=name, **CHAT | {"ignore_eos": True, "max_tokens": 40})
    frames = frames_until(client, "a", "done")
    if (("b", "done")) not in [(frame["id"], frame["type"]) for frame in frames]:
        frames += frames_until(client, "b", "done")
    order = [frame["id"] for frame in frames if frame["type"] == "chunk"]
    assert order.index("b") < len(order) - 1 - order[::-1].index("a"), "one after the other"
    assert text_of(frames, "a") == text_of(frames, "b")


def test_cancelling_frees_the_sequence_within_a_second_and_leaves_the_others(client, server):
    wait_running(server, 0, 30)
    for name in ("stopped", "other"):
        send(client, id=name, **CHAT | LONG)
    wait_running(server, 2, 30)
    send(client, id="stopped", type="cancel")
    assert wait_running(server, 1, 5) < 1
    frames = frames_until(client, "stopped", "cancelled")
    assert text_of(frames, "other")
    send(client, id="other", type="cancel")
    frames_until(client, "other", "cancelled")
    assert wait_running(server, 0, 5) < 1


def test_a_closed_socket_frees_its_sequences_within_a_second(server):
    wait_running(server, 0, 30)
    with connect(f"{server.url.replace('http', 'ws')}/invocations-bidirectional-stream") as client:
        for _ in range(4):
            send(client, **CHAT | LONG)
        wait_running(server, 4, 30)
    assert wait_running(server, 0, 5) < 1


def test_the_three_forms_and_a_whole_answer(client):
    send(client, id="prompt", prompt="The chemical symbol for water is", temperature=0, max_tokens=5)
    send(client, id="inputs", inputs="The chemical symbol for water is", parameters={"max_new_tokens": 5})
    send(client, id="whole", **CHAT | {"stream": False})
    frames = []
    while len([frame for frame in frames if frame["type"] == "done"]) < 3:
        frames.append(json.loads(client.recv(timeout=DEADLINE_S)))
    data = {name: [frame["data"] for frame in frames if frame["id"] == name and "data" in frame] for name in ("prompt", "inputs", "whole")}
    assert "H2O" in "".join(chunk["choices"][0]["text"] for chunk in data["prompt"]).replace("₂", "2")
    assert data["inputs"][-1]["generated_text"] == "".join(chunk["token"]["text"] for chunk in data["inputs"])
    assert [chunk["object"] for chunk in data["whole"]] == ["chat.completion"]


def test_a_bad_field_is_named_and_the_socket_stays(client):
    send(client, id="bad", **CHAT | {"temprature": 1})
    error = frames_until(client, "bad", "error")[-1]["error"]
    assert (error["code"], error["param"]) == (400, "temprature")
    send(client, id="good", **CHAT | {"max_tokens": 1})
    frames_until(client, "good", "done")
