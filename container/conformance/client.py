"""Talks to a container as SageMaker does: only the headers it forwards, 2 s for a ping, 60 s for an answer, 8 minutes for a stream."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

PING_LIMIT_S = 2.0
ANSWER_LIMIT_S = 60.0
STREAM_LIMIT_S = 480.0
ACCEPT_LIMIT_S = 0.25
MAX_BODY_BYTES = 25 * 1024 * 1024

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
SESSION_ID = "X-Amzn-SageMaker-Session-Id"
NEW_SESSION_ID = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_SESSION_ID = "X-Amzn-SageMaker-Closed-Session-Id"

JSON = "application/json"
JSON_LINES = "application/jsonlines"
_FORWARDED = ("content-type", "accept", "x-amzn-sagemaker-")
_ADDED_ON_THE_WIRE = ("host", "connection", "content-length", "transfer-encoding", "authorization")
"""What a connection needs, and what a client of a server at home sends where keys are set."""


@dataclass(frozen=True)
class Ping:
    """One ping on a connection of its own. `status` is None where there was no answer, and `error` says why."""

    at_s: float
    connect_s: float | None
    total_s: float
    status: int | None
    body: bytes = b""
    error: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object in the body; empty where there is none."""
        try:
            told = json.loads(self.body)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


@dataclass
class Client:
    """`api_key` is for servers at home: SageMaker itself sends none."""

    url: str
    api_key: str | None = None
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=ANSWER_LIMIT_S, trust_env=False, event_hooks={"request": [_strip]})

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def connect_s(self, limit_s: float = 2.0) -> float:
        """Seconds until a connection is accepted.

        Raises:
            OSError: it is refused, or not accepted within `limit_s`.
        """
        started = time.monotonic()
        with socket.create_connection(self.address, timeout=limit_s):
            return time.monotonic() - started

    def ping(self, limit_s: float = PING_LIMIT_S) -> Ping:
        """`GET /ping`, with nothing but sockets: it is timed while this process is busy with other requests."""
        started = time.monotonic()
        connected: float | None = None
        connection = http.client.HTTPConnection(*self.address, timeout=limit_s)
        try:
            connection.connect()
            connected = time.monotonic() - started
            connection.request("GET", "/ping")
            answer = connection.getresponse()
            body = answer.read()
            return Ping(started, connected, time.monotonic() - started, answer.status, body)
        except (OSError, http.client.HTTPException) as error:
            return Ping(started, connected, time.monotonic() - started, None, error=repr(error))
        finally:
            connection.close()

    def headers(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """`given` with what every request carries."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": JSON, "Accept": JSON} | key | dict(given or {})

    def invoke(self, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """`POST /invocations`; bytes go as they are, everything else as JSON."""
        return self.post("/invocations", body, headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """`POST` of bytes as they are, or of anything else as JSON."""
        return self.http.post(path, content=to_bytes(body), headers=self.headers(headers))

    def get(self, path: str) -> httpx.Response:
        """`GET`."""
        return self.http.get(path, headers=self.headers())

    def stream(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, path: str = "/invocations") -> "Stream":
        """Open a stream on a thread of its own."""
        return Stream(self, path, {**body, "stream": True}, self.headers(headers))

    def model_names(self) -> list[str]:
        """The ids at `/v1/models`; none where there is no such route."""
        answer = self.get("/v1/models")
        return [model["id"] for model in answer.json()["data"]] if answer.status_code == httpx.codes.OK else []


class Stream(threading.Thread):
    """A streaming request: what arrived, when, and how it ended."""

    def __init__(self, client: Client, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(daemon=True)
        self._client, self._path, self._body, self._headers = client, path, body, headers
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.parts: list[tuple[float, bytes]] = []
        """Seconds on the monotonic clock, and the bytes as they came."""
        self.error = ""
        """Why it broke; empty where the response ended as HTTP says."""
        self.ended_at: float | None = None
        self.asked_at = time.monotonic()
        self.first = threading.Event()
        """Set by the first bytes, or by the end where there are none."""
        self.start()

    def run(self) -> None:
        """Read until the end."""
        try:
            # A client of its own: connections are not shared between threads.
            with (
                httpx.Client(base_url=self._client.url, timeout=ANSWER_LIMIT_S, trust_env=False, event_hooks={"request": [_strip]}) as http,
                http.stream("POST", self._path, content=to_bytes(self._body), headers=dict(self._headers)) as answer,
            ):
                self.status, self.headers = answer.status_code, answer.headers
                for part in answer.iter_raw():
                    self.parts.append((time.monotonic(), part))
                    self.first.set()
        except httpx.HTTPError as error:
            self.error = repr(error)
        self.ended_at = time.monotonic()
        self.first.set()

    def finish(self, limit_s: float = STREAM_LIMIT_S) -> "Stream":
        """Wait for the end."""
        self.join(limit_s)
        return self

    @property
    def raw(self) -> bytes:
        """All bytes so far."""
        return b"".join(part for _, part in self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether it ended as it should: in `[DONE]`, with no error event."""
        events = sse_events(self.raw)
        return not self.error and events[-1:] == ["[DONE]"] and self.error_event is None

    @property
    def error_event(self) -> Any:
        """What the error event says, if there is one."""
        for event in sse_events(self.raw):
            if event != "[DONE]" and (said := json.loads(event)).get("error"):
                return said["error"]
        return None

    @property
    def finish_reason(self) -> str | None:
        """What the chunks say about why the text ends."""
        chunks = [json.loads(event) for event in sse_events(self.raw) if event != "[DONE]"]
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", []) if choice.get("finish_reason")]
        return reasons[-1] if reasons else None

    @property
    def told(self) -> str:
        """How it went, in a few words."""
        error = self.error_event
        end = f"error event {error.get('code') if isinstance(error, dict) else error}" if error is not None else ""
        end = end or ("[DONE]" if self.is_whole else "") or (f"broken ({self.error.partition('(')[0]})" if self.error else "")
        end = end or ("still open" if self.is_alive() else f"status {self.status}, ended without [DONE]")
        return f"{len(sse_events(self.raw))} events, then {end}"


def sse_events(raw: bytes) -> list[str]:
    """The data of each complete server-sent event (WHATWG's rules for fields; no `\\r`).

    Raises:
        ValueError: a line is none of an event stream, or not UTF-8.
    """
    events = []
    *complete, _unfinished = raw.split(b"\n\n")
    for block in complete:
        data = []
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            if name not in ("data", "event", "id", "retry", ""):
                raise ValueError(f"not a line of an event stream: {line[:80]!r}")
            if name == "data":
                data.append(value.removeprefix(" "))
        if data:
            events.append("\n".join(data))
    return events


def text_of(events: Iterable[str]) -> str:
    """The text that the JSON events of a stream make together, in whichever of the three forms."""
    text = ""
    for event in events:
        if event == "[DONE]":
            continue
        chunk = json.loads(event)
        if "token" in chunk:
            text += chunk["token"]["text"]
        for choice in chunk.get("choices", []):
            text += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
    return text


def to_bytes(body: Any) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _strip(request: httpx.Request) -> None:
    for name in list(request.headers):
        if name not in _ADDED_ON_THE_WIRE and not name.startswith(_FORWARDED):
            del request.headers[name]
