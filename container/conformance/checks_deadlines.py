"""SageMaker gives an answer 60 s and a stream 8 minutes; what is cut by that is lost, though paid for. A server can be quicker."""

import time

import httpx

from container.conformance.check import INF, OWN, Check, Failed, Skipped, expect
from container.conformance.client import ANSWER_LIMIT_S, sse_events, text_of
from container.conformance.requests import never_ending
from container.conformance.server import Server

_HEADER = "x-tokenport-deadline-s"
_QUICK_ENOUGH_S = 60.0
"""For how long a stream's deadline is waited for; SageMaker's own would take 8 minutes."""


def _answer_deadline(server: Server) -> str:
    started = time.monotonic()
    try:
        answer = server.client.invoke(never_ending(server.client))
    except httpx.TimeoutException:
        raise Failed(f"no answer in {ANSWER_LIMIT_S:.0f} s: the client gets an error, and the work is lost") from None
    took_s = time.monotonic() - started
    expect(answer.status_code == 200, f"{answer.status_code} after {took_s:.1f} s: {answer.text[:120]}")
    told = answer.json()
    if told["usage"]["completion_tokens"] >= never_ending(server.client)["max_tokens"]:
        raise Skipped("the longest answer the model can give came in time")
    choice = told["choices"][0]
    expect(choice["finish_reason"] == "length", f"finish_reason is {choice['finish_reason']!r}")
    expect(bool(choice["text"]), "no text")
    expect(_HEADER in answer.headers, f"no header {_HEADER}")
    return f"{told['usage']['completion_tokens']} tokens after {took_s:.1f} s, {_HEADER}: {answer.headers[_HEADER]}"


def _stream_deadline(server: Server) -> str:
    if not server.is_tokenport:
        raise Skipped("8 minutes is more than this tool waits")
    started = time.monotonic()
    stream = server.client.stream(never_ending(server.client)).finish(_QUICK_ENOUGH_S)
    expect(not stream.is_alive(), f"still going on after {_QUICK_ENOUGH_S:.0f} s")
    took_s = time.monotonic() - started
    events = sse_events(stream.raw)
    expect(events[-1:] == ["[DONE]"] and not stream.error, stream.told)
    expect(stream.finish_reason == "length" or stream.error_event is not None, "no terminal event says why it ended")
    how = "an error event" if stream.error_event else "finish_reason length"
    return f"ended after {took_s:.1f} s with {how}, {len(text_of(events))} characters"


CHECKS = (
    Check("answer-deadline", "An answer that would take longer than 60 s comes in time, with the text so far", INF, _answer_deadline),
    Check("stream-deadline", "A stream that would take too long is ended, and told so", OWN, _stream_deadline),
)
