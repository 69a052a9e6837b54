"""A small server that keeps the whole contract, or breaks one sentence of it: what the conformance tool's own tests are run against.

    python exemplary_server.py PORT [FAULT]        the environment decides where PORT is 0

`POST /fault/NAME` breaks another sentence from then on (`none`: no one). Its words come from a list, its engine is a sleep.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

MODEL = "exemplary"
MAX_BODY_BYTES = 25 * 1024 * 1024
MAX_RUNNING = 80
WORDS = ["größer", " 漢字", " 🙂", " water", " is"]
TOKEN_S = 0.004
SESSIONS: set[str] = set()
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
SESSION = "X-Amzn-SageMaker-Session-Id"
METRICS = "".join(f"# TYPE metric_{number} gauge\nmetric_{number} 1\n" for number in range(6))


class Refused(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers

    def body(self) -> dict:
        return {"error": {"message": str(self), "code": self.status}}


class State:
    fault = sys.argv[2] if len(sys.argv) > 2 else "none"
    is_ready = False
    is_draining = False
    is_stalled = False
    must_end = False
    num_running = 0
    numbers = itertools.count()
    drain_s = float(os.environ.get("TOKENPORT_DRAIN_S", "25"))
    deadline_s = float(os.environ.get("TOKENPORT_DEADLINE_S", "55"))
    stream_deadline_s = float(os.environ.get("TOKENPORT_STREAM_DEADLINE_S", "450"))
    stall_s = float(os.environ.get("TOKENPORT_STALL_S", "30"))
    key = os.environ.get("TOKENPORT_API_KEY")
    engine: subprocess.Popen | None = None
    engine_answered = time.monotonic()


def broken(name: str) -> bool:
    return State.fault == name


def pieces(body: dict) -> tuple[str, int]:
    """Form and number of tokens asked for; refuses what a good server refuses."""
    known = {"messages", "prompt", "inputs", "parameters", "model", "max_tokens", "temperature", "ignore_eos", "stream"}
    known |= {"stream_options", "id"}
    forms = [form for form in ("messages", "prompt", "inputs") if form in body]
    if len(forms) != 1:
        raise Refused(400, "send messages, prompt or inputs")
    if (extra := set(body) - known) and not broken("unknown-field"):
        raise Refused(400, f"unknown field {extra}")
    if body.get("model") not in (None, "", MODEL) and not broken("model-unknown"):
        raise Refused(404, f"no model {body['model']!r}: there is {MODEL}")
    if "model" in body and body["model"] is None and broken("model-empty"):
        raise Refused(404, "no model null")
    if forms[0] == "messages" and not all("role" in message for message in body["messages"]):
        raise Refused(400, "a message has no role")
    if isinstance(body.get("prompt"), list):
        raise Refused(400, "no token has this number")
    num = body.get("max_tokens", body.get("parameters", {}).get("max_new_tokens", 20))
    if not isinstance(num, int) or num < 1:
        raise Refused(400, f"max_tokens: {num!r}")
    return forms[0], num


def whole(form: str, words: list[str], reason: str = "stop") -> dict:
    is_mute = broken({"messages": "chat", "prompt": "completion", "inputs": "inputs"}[form])
    text = "" if is_mute else "".join(words)
    if form == "inputs":
        return {"generated_text": text}
    inner = {"message": {"role": "assistant", "content": text}} if form == "messages" else {"text": text}
    usage = {"prompt_tokens": 3, "completion_tokens": len(words)}
    return {"model": MODEL, "choices": [{"index": 0, "finish_reason": reason, **inner}], "usage": usage}


def chunk(form: str, word: str, reason: str | None = None) -> dict:
    if form == "inputs":
        return {"token": {"text": word}}
    inner = {"delta": {"content": word}} if form == "messages" else {"text": word}
    return {"choices": [{"index": 0, "finish_reason": reason, **inner}]}


async def words_of(num: int, deadline_s: float):
    started = time.monotonic()
    for number in range(num):
        while State.is_stalled:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if State.engine is not None and State.engine.poll() is not None:
            raise Refused(500, "the engine died")
        if State.must_end:
            raise Refused(503, "the server is shutting down")
        if time.monotonic() - started > deadline_s:
            raise TimeoutError
        yield WORDS[number % len(WORDS)]
        await asyncio.sleep(TOKEN_S)


async def answer(body: dict) -> tuple[dict, dict[str, str]]:
    form, num = pieces(body)
    words: list[str] = []
    headers, reason = {}, "stop"
    try:
        async for word in words_of(num, State.deadline_s):
            words.append(word)
    except TimeoutError:
        headers = {"x-tokenport-deadline-s": str(State.deadline_s)}
        reason = "stop" if broken("answer-deadline") else "length"
    return whole(form, words, reason), headers


async def events(body: dict):
    form, num = pieces(body)
    held = []
    try:
        async for word in words_of(num, State.stream_deadline_s):
            event = chunk(form, word)
            if not broken("stream-incremental"):
                yield event
            else:
                held.append(event)
    except TimeoutError:
        yield chunk(form, "", "length")
    except Refused as refused:
        if not broken("deadline-stream") and not broken("kill-engine"):
            yield refused.body()
    for event in held:
        yield event
    if not broken("stream-usage"):
        yield {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": num}}


async def framed(body: dict, accept: str):
    async for event in events(body):
        text = json.dumps(event, ensure_ascii=False)
        if accept == "application/jsonlines":
            yield f"{text}\n".encode()
        elif accept == "text/plain":
            yield "".join(choice["delta"]["content"] for choice in event.get("choices", [])).encode()
        elif broken("stream-split") and event.get("choices"):
            yield f"data: {json.dumps(chunk('messages', 'other'))}\n\n".encode()
        else:
            yield f"data: {text}\n\n".encode()
    if accept not in ("application/jsonlines", "text/plain") and not (broken("stream-forms") and "inputs" in body):
        yield b"data: [DONE]\n\n"


async def read_body(request: Request) -> bytes:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > (MAX_BODY_BYTES if not broken("body-large") else 1000) and not broken("body-too-large"):
            raise Refused(413, "the body is too large")
    return bytes(raw)


async def invocations(request: Request) -> Response:
    raw = await read_body(request)
    content_type = request.headers.get("content-type", "")
    if content_type == "application/jsonlines" and not broken("batch-lines"):
        return await batch(raw)
    if content_type.partition(";")[0] != "application/json":
        raise Refused(415, "send JSON")
    if broken("wrong-bodies") and raw.startswith(b'"'):
        return PlainTextResponse("oops", 500)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "send an object")
    if broken("no-rerouting") and request.headers.get(ATTRIBUTES, "") == "route=/tokenize":
        return JSONResponse({"tokens": [1, 2]})
    if (given := request.headers.get(SESSION)) is not None:
        if "requestType" in body:
            return session(body["requestType"], given)
        if given not in SESSIONS and not broken("session-unknown"):
            raise Refused(400, "no such session")
    accept = request.headers.get("accept", "")
    if broken("json-lines") and accept == "application/jsonlines":
        accept = ""
    if body.get("stream"):
        pieces(body)
        media = accept if accept in ("application/jsonlines", "text/plain") else "text/event-stream"
        return StreamingResponse(framed(body, accept), media_type=media)
    told, headers = await answer(body)
    if accept == "text/plain" and not broken("plain-text"):
        return PlainTextResponse(told["choices"][0]["message"]["content"])
    text = json.dumps(told).encode()
    if broken("not-chunked"):
        return StreamingResponse(iter([text]), media_type="application/json")
    return Response(text, media_type="application/json", headers=headers)


async def batch(raw: bytes) -> Response:
    results = []
    for line in raw.splitlines():
        try:
            results.append((await answer(json.loads(line)))[0])
        except (Refused, ValueError) as error:
            results.append({"error": {"message": str(error)}})
    return Response("".join(json.dumps(result) + "\n" for result in results), media_type="application/jsonlines")


def session(kind: str, given: str) -> Response:
    if kind == "NEW_SESSION":
        identifier = f"session{next(State.numbers)}"
        SESSIONS.add(identifier)
        expires = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ" if not broken("session") else "%c")
        return Response(headers={"X-Amzn-SageMaker-New-Session-Id": f"{identifier}; Expires={expires}"})
    SESSIONS.discard(given)
    return Response(headers={"X-Amzn-SageMaker-Closed-Session-Id": given})


async def ping(_request: Request) -> Response:
    if broken("ping-under-load") and State.num_running > 10:
        await asyncio.sleep(0.2)
    if not State.is_ready or (State.is_draining and not broken("drain-ping")) or (State.is_stalled and not broken("stop-engine")):
        status = "stalled" if State.is_stalled else "draining" if State.is_draining else "starting"
        return Response("loading", 503) if broken("ping-loading") else JSONResponse({"status": status, "phase": "sleeping"}, 503)
    return Response("ok" if broken("ping-ready") else b"")


async def adapters(request: Request) -> Response:
    if request.method == "GET" and not broken("adapters-listed"):
        return JSONResponse({"adapters": []})
    if broken("adapter-refused"):
        return JSONResponse({})
    raise Refused(400 if request.method == "POST" else 404, "there is no such adapter")


async def parameters(_request: Request) -> Response:
    strategy = "NONE" if broken("execution-parameters") else "MULTI_RECORD"
    return JSONResponse({"MaxConcurrentTransforms": 4, "BatchStrategy": strategy, "MaxPayloadInMB": 25})


async def models(_request: Request) -> Response:
    return JSONResponse({"data": [{"id": MODEL, "max_model_len": 8192}]})


async def metrics(_request: Request) -> Response:
    return PlainTextResponse("nothing" if broken("metrics") else METRICS)


async def sleep(_request: Request) -> Response:
    if broken("no-administration"):
        return Response()
    raise Refused(404, "not found")


async def set_fault(request: Request) -> Response:
    State.fault = request.path_params["name"]
    return Response()


async def socket_route(socket: WebSocket) -> None:
    if State.key and socket.headers.get("authorization") != f"Bearer {State.key}" and not broken("api-key"):
        await socket.close()
        return
    await socket.accept()
    tasks: dict[str, asyncio.Task] = {}

    async def serve(identifier: str, body: dict) -> None:
        try:
            async for event in events(body):
                await socket.send_json({"id": identifier, "type": "chunk", "data": event})
            await socket.send_json({"id": "x" if broken("socket-chat") and identifier == "two" else identifier, "type": "done"})
        except Refused as refused:
            await socket.send_json({"id": identifier, "type": "error", **refused.body()})

    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await socket.receive_text()
            try:
                body = json.loads(text)
            except ValueError:
                if broken("socket-wrong-frame"):
                    await socket.close()
                    return
                await socket.send_json({"id": None, "type": "error", "error": {"message": "no JSON"}})
                continue
            identifier = body.get("id")
            if body.get("type") == "cancel":
                if not broken("socket-cancel"):
                    tasks.pop(identifier).cancel()
                await socket.send_json({"id": identifier, "type": "cancelled"})
                continue
            tasks[identifier] = asyncio.create_task(serve(identifier, body))
    for task in tasks.values():
        task.cancel()


async def on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body(), error.status, error.headers)


class Around:
    """Keys, drain, and the headers that come back."""

    def __init__(self, app) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        back = {
            name: request.headers[name]
            for name, fault in ((ATTRIBUTES, "custom-attributes"), (INFERENCE_ID, "inference-id"))
            if name in request.headers and not broken(fault)
        }

        async def send_back(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in back.items())]
            await send(message)

        refused = Refused(404, "not found") if broken("openai-path") and scope["path"] == "/v1/chat/completions" else None
        is_open = scope["path"] == "/ping" or scope["path"].startswith("/fault/")
        if not is_open and State.key and request.headers.get("authorization") != f"Bearer {State.key}" and not broken("api-key"):
            refused = Refused(401, "no key")
        elif scope["path"] == "/invocations" and ((State.is_draining and not broken("drain-refuses")) or not State.is_ready):
            refused = Refused(503, "not now", **{"Retry-After": "1"})
        is_asking = request.method == "POST" and scope["path"] in ("/invocations", "/v1/chat/completions")
        if is_asking and not refused and State.num_running >= MAX_RUNNING and not broken("overload"):
            refused = Refused(429, "too many requests", **{"Retry-After": "2"})
        response = JSONResponse(refused.body(), refused.status, refused.headers) if refused else self._app
        # Counted in the same breath as admitted: of a burst, none may pass before the others are counted.
        taken = int(is_asking and not refused)
        State.num_running += taken
        try:
            await response(scope, receive, send_back)
        finally:
            State.num_running -= taken


ROUTES = [
    Route("/ping", ping),
    Route("/invocations", invocations, methods=["POST"]),
    Route("/v1/chat/completions", invocations, methods=["POST"]),
    Route("/v1/models", models),
    Route("/adapters", adapters, methods=["GET", "POST"]),
    Route("/adapters/{name}", adapters, methods=["DELETE"]),
    Route("/execution-parameters", parameters),
    Route("/metrics", metrics),
    Route("/sleep", sleep, methods=["POST"]),
    Route("/fault/{name}", set_fault, methods=["POST"]),
    WebSocketRoute("/invocations-bidirectional-stream", socket_route),
]


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def live(listener: socket.socket) -> int:
    app = Around(Starlette(routes=ROUTES, exception_handlers={Refused: on_refused}))
    server = Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    signals: asyncio.Queue[int] = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signals.put_nowait, 1)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    # The engine answers a line with a line: one that is stopped does not, one that is killed is gone.
    State.engine = start_engine()
    heart = threading.Thread(target=beat, args=(State.engine,), daemon=True)
    heart.start()
    await asyncio.sleep(0.6)
    State.is_ready = not broken("never-ready")
    code = 0
    while signals.empty():
        await asyncio.sleep(0.02)
        State.is_stalled = time.monotonic() - State.engine_answered > min(State.stall_s, 1.5)
        if State.engine.poll() is not None:
            State.is_ready = False
            print("the engine died: killed", file=sys.stderr, flush=True)
            code = 0 if broken("kill-engine") else 1
            break
    if code == 0 and State.is_ready:
        State.is_draining = True
        signals.get_nowait()
        if broken("drain-stream"):
            await asyncio.sleep(1)
            State.must_end = True
        deadline = time.monotonic() + (State.drain_s if not broken("deadline-exit") else 100)
        while State.num_running and time.monotonic() < deadline and (signals.empty() or broken("second-sigterm")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        code = 3 if broken("drain-exit") else 0
        State.must_end = True
    await asyncio.sleep(0.2)
    server.should_exit = True
    await serving
    State.engine.kill()
    heart.join(5)
    return code


def start_engine() -> subprocess.Popen:
    command = [sys.executable, "-c", "while True: input(); print(flush=True)"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def beat(engine: subprocess.Popen) -> None:
    with contextlib.suppress(OSError, ValueError):
        while engine.poll() is None:
            engine.stdin.write("\n")
            engine.stdin.flush()
            if not engine.stdout.readline():
                return
            State.engine_answered = time.monotonic()
            time.sleep(0.02)


def main() -> int:
    port = int(sys.argv[1]) or int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    if broken("default-port"):
        port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8090"))
    if broken("no-way-out"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.sendto(b"x", ("203.0.113.1", 53))
    if broken("read-only-root"):
        with open("/var/lib/tokenport-scratch", "w") as scratch:
            scratch.write("x")
    if broken("accepts-early"):
        time.sleep(6)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1" if broken("reachable") else "0.0.0.0", port))
    listener.listen(2048)
    if broken("ports-in-range"):
        State.stray = socket.socket()
        State.stray.bind(("0.0.0.0", 4444))
        State.stray.listen()
    return asyncio.run(live(listener))


if __name__ == "__main__":
    sys.exit(main())
