"""A client that goes away frees its sequence within a second."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.engine
LONG = {"max_tokens": 1500, "ignore_eos": True}
BODIES = {
    "/invocations": {"prompt": "Once upon a time", **LONG},
    "/v1/completions": {"prompt": "Once upon a time", **LONG},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Tell me a story."}], **LONG},
}


def send(server, path: str, body: dict) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def wait_running(server, wanted: int, deadline_s: float) -> float:
    started = time.monotonic()
    while server.running() != wanted:
        assert time.monotonic() - started < deadline_s, f"{server.running()} running after {deadline_s} s, not {wanted}"
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_closing_the_connection_stops_the_generation(server, path, stream):
    wait_running(server, 0, 30)
    connection = send(server, path, BODIES[path] | {"stream": stream})
    wait_running(server, 1, 30)
    connection.close()
    assert wait_running(server, 0, 5) < 1


def test_many_clients_that_leave_at_once(server):
    connections = [send(server, "/invocations", BODIES["/invocations"] | {"stream": number % 2 == 0}) for number in range(16)]
    wait_running(server, 16, 60)
    for connection in connections:
        connection.close()
    assert wait_running(server, 0, 10) < 2
