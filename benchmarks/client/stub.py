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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

import msgspec

from serving.errors import BenchmarkError

_KEPT_REQUESTS = 10_000
_WORD = "word "
_MODEL = "stub"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered. Times count from its arrival, tokens from 1; None and 0 switch a fault off.

    The k-th token comes at `ttft_s + (k - 1) * itl_s`. `tokens_per_event` merges tokens into one event, which comes with its last token;
    `events_per_write` holds events back until so many go out in one write. `split_bytes` cuts every write into pieces of so many bytes,
    `split_gap_s` apart. `accept_delay_s`: the request lies unread so long. `status` and `status_every`: every so manieth request of the
    server is refused with it. `close_after_tokens`, `error_after_tokens`, `garbage_after_tokens`, `hang_after_tokens`: the stream breaks
    off, tells an error, sends no JSON, or stops for good after so many. `refused_fields`: a body with one of them gets 400, dots going
    inwards. `usage`: `right`, `absent`, or `wrong` (one too many). `piece`: where a chat's output stands."""

    num_tokens: int | None = None
    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens_per_event: int = 1
    events_per_write: int = 1
    split_bytes: int = 0
    split_gap_s: float = 0.001
    accept_delay_s: float = 0.0
    status: int = 200
    status_every: int = 1
    close_after_tokens: int | None = None
    error_after_tokens: int | None = None
    error_form: Literal["data", "event"] = "data"
    garbage_after_tokens: int | None = None
    hang_after_tokens: int | None = None
    refused_fields: tuple[str, ...] = ()
    usage: Literal["right", "absent", "wrong"] = "right"
    has_continuous_usage: bool = True
    has_done: bool = True
    finish_reason: str | None = "length"
    piece: Literal["content", "reasoning_content", "tool_calls"] = "content"
    line_end: str = "\n"
    has_comments: bool = False
    num_prompt_tokens: int | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """What holds for the whole server. `stall_s` seconds long, from `stall_at_s` after its first request on, nobody is given anything:
    its work stands still, and goes on where it was. `routes`: paths that exist, None for all. `model`: None for no `/v1/models`."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    stall_at_s: float | None = None
    stall_s: float = 0.0
    routes: tuple[str, ...] | None = None
    model: str | None = _MODEL
    has_tokenize: bool = True


def script_from(text: str) -> Script:
    """A script from JSON: the fields of `Script` and of `Behaviour` side by side.

    Raises:
        BenchmarkError: it is no JSON object, or has a field that neither knows.
    """
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
        own = {name.name for name in fields(Script)} - {"behaviour"}
        behaviour = Behaviour(**{name: value for name, value in given.items() if name not in own})
        return Script(behaviour, **{name: value for name, value in given.items() if name in own})
    except (msgspec.DecodeError, TypeError) as error:
        raise BenchmarkError(f"--script {text!r}: {error}") from None


class WorkClock:
    """Time at which the server works: it stands still while the server stalls."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._stall_from_s: float | None = None

    def note_request(self, now_s: float) -> None:
        """The first request is what the stall's time counts from."""
        if self._stall_from_s is None and self._script.stall_at_s is not None:
            self._stall_from_s = now_s + self._script.stall_at_s

    def work_at(self, time_s: float) -> float:
        """How far work is at a time."""
        if self._stall_from_s is None:
            return time_s
        return min(time_s, max(self._stall_from_s, time_s - self._script.stall_s))

    def time_of(self, work_s: float) -> float:
        """When work is so far. What would come at the very start of the stall comes after it."""
        if self._stall_from_s is None or work_s < self._stall_from_s:
            return work_s
        return work_s + self._script.stall_s


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
            self._answer_json(404, _error(f"no route {path}", 404))
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
            self._answer_json(404, _error(f"no route {path}", 404))

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
            self._answer_json(400, _error(f"Extra inputs are not permitted: {refused[0]}", 400))
        elif behaviour.status != 200 and number % behaviour.status_every == 0:
            self._answer_json(behaviour.status, _error(f"scripted refusal of request {number}", behaviour.status))
        else:
            started_work_s = server.clock.work_at(time.monotonic() if behaviour.accept_delay_s else arrived_s)
            stream = _Stream(body, behaviour, is_chat=kind == "chat" or "messages" in body)
            await (self._stream(stream, started_work_s) if body.get("stream") else self._whole(stream, started_work_s))

    async def _whole(self, stream: "_Stream", started_work_s: float) -> None:
        await self._sleep_until(self._server.clock.time_of(started_work_s + stream.due_s(stream.num_tokens)))
        self._answer_json(200, stream.whole())

    async def _stream(self, stream: "_Stream", started_work_s: float) -> None:
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


class _Stream:
    """The events of one answer. The fixed parts are encoded once."""

    def __init__(self, body: dict[str, Any], behaviour: Behaviour, *, is_chat: bool) -> None:
        self.behaviour = behaviour
        self.num_tokens = int(body.get("max_tokens", 16)) if behaviour.num_tokens is None else behaviour.num_tokens
        self.is_broken_off = behaviour.close_after_tokens is not None
        self._is_chat = is_chat
        self._num_prompt_tokens = _count_prompt(body) if behaviour.num_prompt_tokens is None else behaviour.num_prompt_tokens
        options = body.get("stream_options") or {}
        has_usage = behaviour.usage != "absent"
        self._has_final_usage = has_usage and bool(options.get("include_usage"))
        self._is_counted_along = has_usage and behaviour.has_continuous_usage and bool(options.get("continuous_usage_stats"))
        name = "chat.completion.chunk" if is_chat else "text_completion"
        self._before = f'{{"id":"cmpl-stub","object":"{name}","created":0,"model":"{_MODEL}","choices":['.encode()

    def due_s(self, num_sent: int) -> float:
        """When the token `num_sent` is made, from the start of work."""
        return self.behaviour.ttft_s + max(0, num_sent - 1) * self.behaviour.itl_s

    def head(self) -> bytes:
        """What comes at once: for chat, who speaks."""
        return self._event('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}', 0) if self._is_chat else b""

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Each event of output or of a fault, with how many tokens are out by then."""
        behaviour, num_sent = self.behaviour, 0
        end = self.num_tokens if behaviour.close_after_tokens is None else min(self.num_tokens, behaviour.close_after_tokens)
        while num_sent < end:
            if num_sent == behaviour.error_after_tokens:
                yield num_sent, self._error_event()
                return
            if num_sent == behaviour.garbage_after_tokens:
                yield num_sent, self._framed(b'{"choices": [{"text": "wo')
            num_new = min(behaviour.tokens_per_event, end - num_sent)
            num_sent += num_new
            finish = behaviour.finish_reason if num_sent == self.num_tokens else None
            yield num_sent, self._event(self._choice(_WORD * num_new, finish), num_sent)

    def tail(self) -> bytes:
        """Usage and the end of the stream."""
        usage = b""
        if self._has_final_usage:
            usage = self._framed(self._before + b'],"usage":' + msgspec.json.encode(self._usage(self.num_tokens)) + b"}")
        return usage + (self._framed(b"[DONE]") if self.behaviour.has_done else b"")

    def whole(self) -> dict[str, Any]:
        """The answer as one body."""
        text = _WORD * self.num_tokens
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.behaviour.finish_reason}
        choice |= {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        answer: dict[str, Any] = {"id": "cmpl-stub", "model": _MODEL, "choices": [choice]}
        return answer if self.behaviour.usage == "absent" else answer | {"usage": self._usage(self.num_tokens)}

    def _choice(self, text: str, finish_reason: str | None) -> str:
        finish = "null" if finish_reason is None else f'"{finish_reason}"'
        if not self._is_chat:
            return f'{{"index":0,"text":"{text}","finish_reason":{finish}}}'
        output = f'"{text}"'
        if self.behaviour.piece == "tool_calls":
            output = f'[{{"index":0,"function":{{"arguments":"{text}"}}}}]'
        return f'{{"index":0,"delta":{{"{self.behaviour.piece}":{output}}},"finish_reason":{finish}}}'

    def _event(self, choice: str, num_sent: int) -> bytes:
        usage = b""
        if self._is_counted_along:
            usage = b',"usage":' + msgspec.json.encode(self._usage(num_sent))
        return self._framed(self._before + choice.encode() + b"]" + usage + b"}")

    def _error_event(self) -> bytes:
        end = self.behaviour.line_end.encode()
        name = b"event: error" + end if self.behaviour.error_form == "event" else b""
        return name + self._framed(msgspec.json.encode(_error("scripted error in the stream", 500)))

    def _framed(self, data: bytes) -> bytes:
        end = self.behaviour.line_end.encode()
        comment = b": a comment" + end + end if self.behaviour.has_comments else b""
        return comment + b"data: " + data + end + end

    def _usage(self, num_sent: int) -> dict[str, Any]:
        told = num_sent + 1 if self.behaviour.usage == "wrong" and num_sent == self.num_tokens else num_sent
        usage: dict[str, Any] = {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": told,
            "total_tokens": self._num_prompt_tokens + told,
        }
        if self.behaviour.num_cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.behaviour.num_cached_tokens}
        return usage


def _kind_of(path: str) -> str | None:
    if path == "/invocations":
        return "any"
    return {"chat/completions": "chat", "completions": "completions"}.get(path.removeprefix("/v1").removeprefix("/"))


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _count_prompt(body: dict[str, Any]) -> int:
    """A word a token, as everything here is counted."""
    if "messages" in body:
        return sum(len(str(message["content"]).split()) for message in body["messages"])
    prompt = body.get("prompt", "")
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


def _has_field(body: dict[str, Any], path: str) -> bool:
    found: Any = body
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return False
        found = found[name]
    return True


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Scripted", "param": None, "code": status}}


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
