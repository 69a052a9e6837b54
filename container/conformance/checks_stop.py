"""SIGTERM, as at scale-in: what runs goes on, what is new is sent away, and the process is gone before SIGKILL, 30 s later."""

import signal
import time
from dataclasses import dataclass

import httpx

from container.conformance.check import INF, OWN, Check, Failed, Skipped, expect
from container.conformance.client import Ping, Stream
from container.conformance.requests import completion, long, never_ending
from container.conformance.server import Program, Server

KILL_AFTER_S = 30.0
_AT_ONCE_S = 5.0
_SAMPLE_TOKENS = 20
_STREAM_S = 3.0
"""How long the stream that is to outlive SIGTERM should take."""
_MAX_TOKENS = 2000
_FIRST_LIMIT_S = 30.0
_SETTLE_S = 0.3


@dataclass(frozen=True)
class Stop:
    """What was seen when SIGTERM came while a stream ran."""

    ping: Ping
    refused_status: int | None
    retry_after: str | None
    stream: Stream
    exit_code: int | None
    exit_s: float


def program_of(server: Server) -> Program:
    """The process to signal.

    Raises:
        Skipped: there is none that we may.
    """
    if server.program is None:
        raise Skipped(server.hidden.get("start", "its process is not ours"))
    return server.program


def begun(stream: Stream) -> Stream:
    """The stream, with its first part there."""
    if not stream.first.wait(_FIRST_LIMIT_S) or not stream.parts or stream.status != 200:
        raise Failed(f"no stream to try it with: status {stream.status}, {stream.raw[:120]!r} {stream.error}")
    return stream


def _stopped_while_streaming(server: Server) -> Stop:
    """SIGTERM while one stream runs; done once, however many checks look at it."""
    seen = server.observed.get("stop")
    if isinstance(seen, Stop):
        return seen
    program = program_of(server)
    sample = begun(server.client.stream(long(_SAMPLE_TOKENS))).finish()
    seconds = max(sample.parts[-1][0] - sample.parts[0][0], 0.001)
    num_tokens = max(_SAMPLE_TOKENS, min(_MAX_TOKENS, int(_SAMPLE_TOKENS / seconds * _STREAM_S)))
    stream = begun(server.client.stream(long(num_tokens)))
    program.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    time.sleep(_SETTLE_S)
    ping = server.client.ping()
    refused_status, retry_after = None, None
    try:
        refused = server.client.invoke(completion(1))
        refused_status, retry_after = refused.status_code, refused.headers.get("retry-after")
    except httpx.HTTPError:
        pass  # not even refused: it no longer answers
    code = program.exit_code(KILL_AFTER_S)
    stop = Stop(ping, refused_status, retry_after, stream.finish(5), code, time.monotonic() - signalled)
    server.observed["stop"] = stop
    return stop


def _ping_draining(server: Server) -> str:
    ping = _stopped_while_streaming(server).ping
    expect(ping.status == 503, f"{ping.status or ping.error} instead of 503")
    return f"503 {ping.body[:60].decode(errors='replace')}"


def _refuses_new(server: Server) -> str:
    stop = _stopped_while_streaming(server)
    expect(stop.refused_status == 503, f"{stop.refused_status or 'no answer'} instead of 503")
    expect((stop.retry_after or "").isdigit(), f"Retry-After is {stop.retry_after!r}")
    return f"503, Retry-After {stop.retry_after} s"


def _stream_goes_on(server: Server) -> str:
    stop = _stopped_while_streaming(server)
    expect(stop.stream.is_whole, stop.stream.told)
    return stop.stream.told


def _exits_in_time(server: Server) -> str:
    stop = _stopped_while_streaming(server)
    expect(stop.exit_code is not None, "still there after 30 s: SageMaker kills it")
    expect(stop.exit_code == 0, f"exit code {stop.exit_code} after {stop.exit_s:.1f} s")
    return f"exit code 0 after {stop.exit_s:.1f} s"


def _stopped_with_endless_stream(server: Server) -> Stop:
    seen = server.observed.get("stop")
    if isinstance(seen, Stop):
        return seen
    program = program_of(server)
    stream = begun(server.client.stream(never_ending(server.client)))
    program.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    code = program.exit_code(KILL_AFTER_S)
    stop = Stop(server.client.ping(), None, None, stream.finish(5), code, time.monotonic() - signalled)
    server.observed["stop"] = stop
    return stop


def _tells_the_stream(server: Server) -> str:
    stop = _stopped_with_endless_stream(server)
    if stop.stream.is_whole and stop.stream.finish_reason is not None:
        raise Skipped("the longest stream the model can give ended by itself")
    error = stop.stream.error_event
    expect(error is not None, stop.stream.told)
    expect(isinstance(error, dict) and error.get("code") == 503, f"the error event is {str(error)[:120]}, not of code 503")
    expect(stop.stream.raw.endswith(b"data: [DONE]\n\n"), "[DONE] does not follow the error event")
    return f"error event: {error['message'][:80]}"


def _exits_at_deadline(server: Server) -> str:
    stop = _stopped_with_endless_stream(server)
    expect(stop.exit_code is not None, "still there after 30 s: SageMaker kills it")
    expect(stop.exit_code == 0, f"exit code {stop.exit_code} after {stop.exit_s:.1f} s")
    return f"exit code 0 after {stop.exit_s:.1f} s with a stream that would not end"


def _second_signal(server: Server) -> str:
    program = program_of(server)
    stream = begun(server.client.stream(never_ending(server.client)))
    program.send_signal(signal.SIGTERM)
    time.sleep(1)
    early = program.exit_code(0)
    expect(early is None, f"the first SIGTERM already ended it, with {early}")
    program.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code = program.exit_code(_AT_ONCE_S)
    expect(code is not None, f"still there {_AT_ONCE_S:.0f} s after the second SIGTERM")
    return f"gone {time.monotonic() - started:.1f} s after it, exit code {code}; the stream: {stream.finish(5).told}"


DRAIN_CHECKS = (
    Check("drain-ping", "After SIGTERM /ping is 503", OWN, _ping_draining),
    Check("drain-refuses", "After SIGTERM a new request is a 503 with Retry-After", OWN, _refuses_new),
    Check("drain-stream", "After SIGTERM a running stream goes on to its end", INF, _stream_goes_on),
    Check("drain-exit", "After SIGTERM it exits with 0 within 30 s", INF, _exits_in_time),
)
DEADLINE_CHECKS = (
    Check("deadline-stream", "A stream that outlasts the drain is told by a terminal event", OWN, _tells_the_stream),
    Check("deadline-exit", "With a stream that does not end it exits with 0 before SIGKILL", INF, _exits_at_deadline),
)
SECOND_SIGNAL_CHECKS = (Check("second-sigterm", "A second SIGTERM ends it at once", OWN, _second_signal),)
