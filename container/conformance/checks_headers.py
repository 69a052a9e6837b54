"""The headers that SageMaker forwards, and those it hands back; sessions are made of nothing else."""

import re
import time
from datetime import UTC, datetime, timedelta

from container.conformance.check import RUNTIME, STANDARDS, Check, expect
from container.conformance.client import CLOSED_SESSION_ID, CUSTOM_ATTRIBUTES, INFERENCE_ID, NEW_SESSION_ID, SESSION_ID
from container.conformance.requests import chat
from container.conformance.server import Server

_NEW_SESSION = re.compile(r"([a-zA-Z0-9](-*[a-zA-Z0-9])*); Expires=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
_MAX_ATTRIBUTES_LENGTH = 1024


def _custom_attributes(server: Server) -> str:
    for given in ("trace-id=abc123,tenant=7", "x" * _MAX_ATTRIBUTES_LENGTH):
        whole = server.client.invoke(chat(1), {CUSTOM_ATTRIBUTES: given})
        expect(whole.headers.get(CUSTOM_ATTRIBUTES) == given, f"the answer has {whole.headers.get(CUSTOM_ATTRIBUTES)!r} for {given[:30]!r}")
        stream = server.client.stream(chat(1), {CUSTOM_ATTRIBUTES: given}).finish()
        expect(
            stream.headers.get(CUSTOM_ATTRIBUTES) == given, f"the stream has {stream.headers.get(CUSTOM_ATTRIBUTES)!r} for {given[:30]!r}"
        )
    refused = server.client.invoke(b"no JSON", {CUSTOM_ATTRIBUTES: "a=b"})
    expect(refused.headers.get(CUSTOM_ATTRIBUTES) == "a=b", "an error's response does not carry it")
    return "as given, on answers, streams and errors"


def _inference_id(server: Server) -> str:
    given = f"conformance-{time.monotonic_ns()}"
    whole = server.client.invoke(chat(1), {INFERENCE_ID: given})
    expect(whole.headers.get(INFERENCE_ID) == given, f"the answer has {whole.headers.get(INFERENCE_ID)!r}")
    stream = server.client.stream(chat(1), {INFERENCE_ID: given}).finish()
    expect(stream.headers.get(INFERENCE_ID) == given, f"the stream has {stream.headers.get(INFERENCE_ID)!r}")
    return "as given, on answers and streams"


def _session(server: Server) -> str:
    opened = server.client.invoke({"requestType": "NEW_SESSION"}, {SESSION_ID: "NEW_SESSION"})
    expect(opened.status_code == 200, f"NEW_SESSION: {opened.status_code} {opened.text[:120]}")
    value = opened.headers.get(NEW_SESSION_ID, "")
    match = _NEW_SESSION.fullmatch(value)
    expect(match is not None, f"{NEW_SESSION_ID} is {value!r}, not `ID; Expires=YYYY-MM-DDThh:mm:ssZ`")
    session, expires = (match[1], match[3]) if match else ("", "")
    left = datetime.fromisoformat(expires) - datetime.now(UTC)
    expect(left > timedelta(0), f"it expired before it began: {expires}")
    used = server.client.invoke(chat(1), {SESSION_ID: session})
    expect(used.status_code == 200, f"a request in the session: {used.status_code} {used.text[:120]}")
    closed = server.client.invoke({"requestType": "CLOSE"}, {SESSION_ID: session})
    expect(closed.status_code == 200, f"CLOSE: {closed.status_code} {closed.text[:120]}")
    expect(closed.headers.get(CLOSED_SESSION_ID) == session, f"{CLOSED_SESSION_ID} is {closed.headers.get(CLOSED_SESSION_ID)!r}")
    return f"opened for {left.total_seconds():.0f} s, used, closed"


def _closed_session(server: Server) -> str:
    answer = server.client.invoke(chat(1), {SESSION_ID: "no-such-session"})
    expect(400 <= answer.status_code < 500, f"a request in a session that there never was: {answer.status_code}")
    return f"{answer.status_code}"


CHECKS = (
    Check("custom-attributes", "Custom-Attributes come back as they were given", RUNTIME, _custom_attributes),
    Check("inference-id", "The Inference-Id comes back", RUNTIME, _inference_id),
    Check("session", "NEW_SESSION gives `ID; Expires=...`, the session can be used, CLOSE names it", RUNTIME, _session),
    Check("session-unknown", "An unknown session is a 4xx", STANDARDS, _closed_session),
)
