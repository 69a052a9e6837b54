"""A server whose timing is scripted, to hold the client to: `python -m benchmarks.client.stub --script JSON`, or a body's `stub` field.

It answers OpenAI's completions and chat, `/invocations`, `/tokenize` and `/v1/models`, each token at its exact time on an absolute
schedule, and misbehaves as told. Cheap, as the client's own ceiling is measured against it. `/stub/requests` tells what came.
"""

import argparse
import asyncio
import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec

from benchmarks.client.stub_answer import Stream, error_body
from benchmarks.client.stub_script import Behaviour, Script, WorkClock, script_from
from serving.errors import BenchmarkError

_KEPT_REQUESTS = 10_000


@dataclass(slots=True)
class StubServer:
    """The state that connections share."""

    script: Script
    clock: WorkClock
    num_requests: int = 0
    received: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_REQUESTS))


class _Connection(asyncio.Protocol):
    """One connection: reads a request, answers it, reads the next."""

    def __init__(self, server: StubServer) -> None:
        self._server = server
        self._rest = b""
        self._answering: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self._take_request()

    def connection_lost(self, exception: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def _take_request(self) -> None:
        if self._answering is not None:
            return
        head, found, rest = self._rest.partition(b"\r\n\r\n")
        if not found:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        arrived_s = time.monotonic()
        self._rest = rest[length:]
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self._answering = self._loop.create_task(self._answer(method, path, rest[:length], arrived_s))
        self._answering.add_done_callback(self._go_on)

    def _go_on(self, answered: asyncio.Task[None]) -> None:
        self._answering = None
        if not answered.cancelled():
            answered.result()
            if not self._transport.is_closing():
                self._take_request()

    async def _answer(self, method: str, path: str, body: bytes, arrived_s: float) -> None:
        script = self._server.script
        kind = _kind_of(path)
        if script.routes is not None and path not in script.routes:
            self._answer_json(404, error_body(f"no route {path}", 404))
        elif path == "/stub/requests":
            self._answer_json(200, list(self._server.received))
        elif path == "/v1/models" and script.model is not None:
            self._answer_json(200, {"object": "list", "data": [{"id": script.model, "object": "model", "max_model_len": 131072}]})
        elif path == "/tokenize" and script.has_tokenize:
            words = str(msgspec.json.decode(body).get("prompt", "")).split()
            self._answer_json(200, {"count": len(words), "tokens": list(range(len(words))), "max_model_len": 131072})
        elif path in ("/ping", "/health"):
            self._answer_json(200, {})
        elif method == "POST" and kind is not None:
            await self._generate(msgspec.json.decode(body, type=dict[str, Any]), kind, arrived_s)
        else:
            self._answer_json(404, error_body(f"no route {path}", 404))

    async def _generate(self, body: dict[str, Any], kind: str, arrived_s: float) -> None:
        server = self._server
        scripted = body.pop("stub", None)
        behaviour = replace(server.script.behaviour, **scripted) if scripted else server.script.behaviour
        server.num_requests += 1
        number = server.num_requests
        server.clock.note_request(arrived_s)
        server.received.append({"at_s": arrived_s, "body": body})
        await self._sleep_until(arrived_s + behaviour.accept_delay_s)
        refused = [name for name in behaviour.refused_fields if _has_field(body, name)]
        if refused:
            self._answer_json(400, error_body(f"Extra inputs are not permitted: {refused[0]}", 400))
        elif behaviour.status != 200 and number % behaviour.status_every == 0:
            self._answer_json(behaviour.status, error_body(f"scripted refusal of request {number}", behaviour.status))
        else:
            started_work_s = server.clock.work_at(time.monotonic() if behaviour.accept_delay_s else arrived_s)
            stream = Stream(body, behaviour, is_chat=kind == "chat" or "messages" in body)
            await (self._stream(stream, started_work_s) if body.get("stream") else self._whole(stream, started_work_s))

    async def _whole(self, stream: Stream, started_work_s: float) -> None:
        await self._sleep_until(self._server.clock.time_of(started_work_s + stream.due_s(stream.num_tokens)))
        self._answer_json(200, stream.whole())

    async def _stream(self, stream: Stream, started_work_s: float) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
        await self._write(stream.head(), stream.behaviour)
        held, num_held, time_of = b"", 0, self._server.clock.time_of
        for num_sent, event in stream.events():
            due_s = time_of(started_work_s + stream.due_s(num_sent))
            await self._sleep_until(due_s)
            if stream.behaviour.hang_after_tokens is not None and num_sent > stream.behaviour.hang_after_tokens:
                await asyncio.Event().wait()
            held, num_held = held + event, num_held + 1
            if num_held >= stream.behaviour.events_per_write:
                await self._write(held, stream.behaviour)
                held, num_held = b"", 0
        await self._write(held, stream.behaviour)
        if stream.is_broken_off:
            self._transport.close()
        else:
            await self._write(stream.tail(), stream.behaviour)
            self._transport.write(b"0\r\n\r\n")

    async def _write(self, data: bytes, behaviour: Behaviour) -> None:
        if not data:
            return
        if not behaviour.split_bytes:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        for start in range(0, len(data), behaviour.split_bytes):
            piece = data[start : start + behaviour.split_bytes]
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(behaviour.split_gap_s)

    async def _sleep_until(self, due_s: float) -> None:
        # uvloop's timers are of whole milliseconds and may be early.
        while (left_s := due_s - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    def _answer_json(self, status: int, answer: Any) -> None:
        body = msgspec.json.encode(answer)
        head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def _kind_of(path: str) -> str | None:
    if path == "/invocations":
        return "any"
    return {"chat/completions": "chat", "completions": "completions"}.get(path.removeprefix("/v1").removeprefix("/"))


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _has_field(body: dict[str, Any], path: str) -> bool:
    found: Any = body
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return False
        found = found[name]
    return True


async def serve(script: Script, port: int) -> None:
    """Answer until the process is ended; says its URL on standard output once it listens."""
    server = StubServer(script, WorkClock(script))
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", port, backlog=4096)
    print(f"stub listening on http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    async with listening:
        await listening.serve_forever()


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client.stub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--script", default="{}", help="JSON with fields of Script and Behaviour")
    options = parser.parse_args(words)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(script_from(options.script), options.port))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as wrong:
        sys.exit(f"stub: {wrong}")
    except KeyboardInterrupt:
        sys.exit(0)
