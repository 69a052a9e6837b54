"""The bidirectional route: requests and chunks as text frames over one WebSocket, and an answer that is cancelled midway."""

import json
import time
from typing import Any

from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from container.conformance.check import INF, OWN, Check, Failed, expect
from container.conformance.requests import chat, long
from container.conformance.server import Server

_PATH = "/invocations-bidirectional-stream"
_FRAME_LIMIT_S = 60.0
_CANCEL_LIMIT_S = 5.0


def _open(server: Server) -> ClientConnection:
    try:
        return connect(f"ws{server.client.url.removeprefix('http')}{_PATH}", proxy=None, open_timeout=10, max_size=None)
    except InvalidHandshake as error:
        raise Failed(f"no WebSocket: {error}") from error


def _receive(socket: ClientConnection) -> dict[str, Any]:
    frame = socket.recv(timeout=_FRAME_LIMIT_S)
    expect(isinstance(frame, str), "a binary frame came, not a text frame")
    told: dict[str, Any] = json.loads(frame)
    return told


def _chat(server: Server) -> str:
    with _open(server) as socket:
        counts = []
        # Twice on one connection: it is a conversation, not a request.
        for identifier in ("one", "two"):
            socket.send(json.dumps(chat(id=identifier)))
            frames = [_receive(socket)]
            while frames[-1]["type"] == "chunk":
                frames.append(_receive(socket))
            expect(frames[-1]["type"] == "done", f"the last frame is {json.dumps(frames[-1])[:120]}")
            expect(len(frames) > 1, "done without a chunk")
            expect({frame["id"] for frame in frames} == {identifier}, "a frame has another request's id")
            counts.append(len(frames) - 1)
    return f"two requests on one connection, {counts[0]} and {counts[1]} chunks"


def _cancel(server: Server) -> str:
    with _open(server) as socket:
        socket.send(json.dumps(long(2000, id="long")))
        expect(_receive(socket)["type"] == "chunk", "no chunk came first")
        socket.send(json.dumps({"type": "cancel", "id": "long"}))
        cancelled, late = time.monotonic(), 0
        while (frame := _receive(socket))["type"] == "chunk":
            late += 1
            expect(time.monotonic() - cancelled < _CANCEL_LIMIT_S, f"chunks go on {_CANCEL_LIMIT_S:.0f} s after the cancel")
        expect(frame["type"] == "cancelled" and frame["id"] == "long", f"got {json.dumps(frame)[:120]}")
        took_ms = (time.monotonic() - cancelled) * 1000
        socket.send(json.dumps(chat(4, id="next")))
        while (frame := _receive(socket))["type"] == "chunk":
            expect(frame["id"] == "next", "chunks of the cancelled request go on")
        expect(frame["type"] == "done" and frame["id"] == "next", f"afterwards a request got {json.dumps(frame)[:120]}")
    return f"ended {took_ms:.0f} ms after the cancel, {late} chunks late; the connection serves on"


def _wrong_frame(server: Server) -> str:
    with _open(server) as socket:
        for wrong in ("no JSON", json.dumps({"id": "bad", "nonsense": 1})):
            socket.send(wrong)
            frame = _receive(socket)
            expect(frame["type"] == "error" and bool(frame["error"]["message"]), f"{wrong!r} got {json.dumps(frame)[:120]}")
        socket.send(json.dumps(chat(1, id="good")))
        expect(_receive(socket)["id"] == "good", "the connection is of no use afterwards")
    return "told by an error frame each; the connection serves on"


CHECKS = (
    Check("socket-chat", f"{_PATH} answers requests in text frames", INF, _chat),
    Check("socket-cancel", "A request can be cancelled midway, and the connection serves on", OWN, _cancel),
    Check("socket-wrong-frame", "A wrong frame gets an error frame, not the end of the connection", OWN, _wrong_frame),
)
