"""Streams: each part as soon as it is there, whole in the end, readable however the network cuts it, in the framing asked for."""

import codecs
import itertools
import json
import random

from container.conformance.check import INF, OWN, RUNTIME, Check, Failed, expect
from container.conformance.client import JSON_LINES, sse_events, text_of
from container.conformance.requests import chat, completion, inputs, long
from container.conformance.server import Server

_NUM_SPLITS = 200
_MULTIBYTE = "Repeat this exactly: größer, 漢字, 🙂🙂🙂"


def _incremental(server: Server) -> str:
    stream = server.client.stream(long(40)).finish()
    expect(stream.is_whole, stream.told)
    expect(
        str(stream.headers.get("content-type", "")).startswith("text/event-stream"), f"Content-Type {stream.headers.get('content-type')}"
    )
    first_s, last_s = stream.parts[0][0], stream.parts[-1][0]
    waited_s = first_s - stream.asked_at
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(stream.parts)]
    told = f"the first part after {waited_s:.2f} s, {len(stream.parts)} over {last_s - first_s:.2f} s"
    told += f", the longest wait {max(gaps, default=0) * 1000:.0f} ms"
    is_spread = len(stream.parts) >= 5 and max(gaps) < 0.5 * (last_s - first_s) and waited_s < 0.5 * (last_s - stream.asked_at)
    expect(is_spread, f"{told}: it comes in lumps")
    return told


def _all_forms(server: Server) -> str:
    told = []
    for name, body in {"chat": chat(), "completion": completion(), "inputs": inputs()}.items():
        stream = server.client.stream(body).finish()
        expect(stream.is_whole, f"{name}: {stream.told}")
        expect(bool(text_of(sse_events(stream.raw))), f"{name}: no text")
        told.append(f"{name} {len(sse_events(stream.raw))} events")
    return ", ".join(told)


def _split_anywhere(server: Server) -> str:
    body = chat(24, _MULTIBYTE)
    stream = server.client.stream(body).finish()
    expect(stream.is_whole, stream.told)
    raw, text = stream.raw, text_of(sse_events(stream.raw))
    dice = random.Random(0)  # noqa: S311 - the same splits every time
    for _ in range(_NUM_SPLITS):
        cuts = sorted(dice.sample(range(1, len(raw)), k=min(len(raw) - 1, dice.randint(1, 40))))
        parts = [raw[start:end] for start, end in itertools.pairwise([0, *cuts, len(raw)])]
        expect(text_of(_reassembled(parts)) == text, "cut into other parts it reads differently")
    # Greedy decoding may turn at a tie, so that one of a few whole answers must be the same.
    whole = {server.client.invoke(body).json()["choices"][0]["message"]["content"] for _ in range(3)}
    expect(text in whole, f"the stream says {text[:60]!r}, the same request unstreamed {whole.pop()[:60]!r}")
    return f"{len(raw)} bytes, {_NUM_SPLITS} random splits, each gives the {len(text)} characters that the answer not streamed has"


def _reassembled(parts: list[bytes]) -> list[str]:
    """What a client of SageMaker's event stream does: decode and cut at blank lines as bytes come."""
    decoder, pending, events = codecs.getincrementaldecoder("utf-8")(), "", []
    for part in parts:
        pending += decoder.decode(part)
        *complete, pending = pending.split("\n\n")
        events += [event.removeprefix("data:").strip() for event in complete if event.startswith("data:")]
    return events


def _usage(server: Server) -> str:
    stream = server.client.stream(long(8, stream_options={"include_usage": True})).finish()
    usages = [usage for event in sse_events(stream.raw)[:-1] if (usage := json.loads(event).get("usage"))]
    expect(len(usages) > 0, "no chunk has usage")
    expect(usages[-1]["completion_tokens"] == 8, f"{usages[-1]} for 8 tokens")
    return f"{usages[-1]['prompt_tokens']} + {usages[-1]['completion_tokens']} tokens in the last chunk"


def _json_lines(server: Server) -> str:
    stream = server.client.stream(chat(), {"Accept": JSON_LINES}).finish()
    content_type = str(stream.headers.get("content-type", ""))
    expect(stream.status == 200 and content_type.startswith(JSON_LINES), f"status {stream.status}, Content-Type {content_type}")
    lines = stream.raw.decode().splitlines()
    try:
        text = text_of(lines)
    except ValueError:
        raise Failed(f"not JSON lines: {lines[0][:80]!r}") from None
    expect(bool(text), "no text")
    return f"{len(lines)} lines of JSON"


def _plain_text(server: Server) -> str:
    wanted = server.client.invoke(chat()).json()["choices"][0]["message"]["content"]
    whole = server.client.invoke(chat(), {"Accept": "text/plain"})
    content_type = whole.headers.get("content-type", "")
    expect(whole.status_code == 200 and content_type.startswith("text/plain"), f"status {whole.status_code}, Content-Type {content_type}")
    expect(whole.text == wanted, f"{whole.text[:60]!r} instead of {wanted[:60]!r}")
    stream = server.client.stream(chat(), {"Accept": "text/plain"}).finish()
    expect(
        str(stream.headers.get("content-type", "")).startswith("text/plain"), f"streamed: Content-Type {stream.headers.get('content-type')}"
    )
    expect(stream.raw.decode() == wanted, f"streamed: {stream.raw[:60]!r}")
    return f"the text alone, whole and streamed: {wanted[:30]!r}"


CHECKS = (
    Check("stream-incremental", "Each part of a stream is sent when it is there", INF, _incremental),
    Check("stream-forms", "Streams of all three forms are server-sent events that end in [DONE]", OWN, _all_forms),
    Check(
        "stream-split", "However the stream is cut into parts, it reads the same, and as the answer not streamed", RUNTIME, _split_anywhere
    ),
    Check("stream-usage", "include_usage gives the tokens used in the last chunk", OWN, _usage),
    Check("json-lines", "Accept: application/jsonlines gives JSON lines", OWN, _json_lines),
    Check("plain-text", "Accept: text/plain gives the text alone", OWN, _plain_text),
)
