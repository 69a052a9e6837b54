"""Questions whose answers can be graded, asked of a server's chat route by so many at once, and what came of each.

For cascades: beside text and times it keeps what the server says of who answered. Each question is asked once; a failure is an answer too.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from benchmarks.client.answer import one_line, reason_in
from benchmarks.client.sse import EventParser
from serving.questions import Question

_HTTP_OK = 200
_DONE = b"[DONE]"


@dataclass(slots=True)
class Answered:
    """What became of one question asked of `model`. `quality` is 1 for the right answer, else 0. `tier`, `decision`, `hold_s`, `cost_usd`:
    as the server tells them, None where it does not. Times in seconds from the sending. `error` is None for an answer that came whole."""

    identifier: str
    model: str
    quality: float = 0.0
    tier: str | None = None
    decision: str | None = None
    hold_s: float | None = None
    cost_usd: float | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None
    output_tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one server. `url` is its root; `max_tokens` None for what it allows; `timeout_s` for a whole answer."""

    url: str
    headers: Mapping[str, str]
    concurrency: int
    max_tokens: int | None
    timeout_s: float

    async def ask_all(self, questions: Sequence[Question], model: str) -> list[Answered]:
        """One answer a question, in their order."""
        places = asyncio.Semaphore(self.concurrency)
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=self.headers, timeout=timeout, connector=connector) as session:

            async def ask(question: Question) -> Answered:
                async with places:
                    return await self._ask(session, question, model)

            return await asyncio.gather(*map(ask, questions))

    async def _ask(self, session: aiohttp.ClientSession, question: Question, model: str) -> Answered:
        answered = Answered(question.identifier, model)
        body = {
            "model": model,
            "messages": list(question.messages),
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        sent_s = time.monotonic()
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
                if response.status != _HTTP_OK:
                    answered.error = f"HTTP {response.status}: {reason_in(await response.read())}"
                else:
                    _take_headers(answered, response.headers)
                    text = await _read(response, answered, sent_s)
                    answered.quality = question.quality(text) if answered.error is None else 0.0
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            answered.error = one_line(str(error) or type(error).__name__)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            answered.error = one_line(f"an answer that is not understood: {error}")
        answered.e2e_s = time.monotonic() - sent_s
        return answered


def _take_headers(answered: Answered, headers: Mapping[str, str]) -> None:
    answered.tier = headers.get("x-tokenport-tier")
    answered.decision = headers.get("x-tokenport-decision")
    if "x-tokenport-hold-ms" in headers:
        answered.hold_s = float(headers["x-tokenport-hold-ms"]) / 1000
    if "x-tokenport-cost" in headers:
        answered.cost_usd = float(headers["x-tokenport-cost"])


async def _read(response: aiohttp.ClientResponse, answered: Answered, sent_s: float) -> str:
    """The text of the stream. What it cost in the end stands in its last chunk: the header went out before the answer did."""
    pieces: list[str] = []
    parser = EventParser()
    is_done = False
    while read := await response.content.readany():
        for event in parser.feed(read):
            if event.data == _DONE:
                is_done = True
                continue
            chunk = json.loads(event.data)
            if "error" in chunk:
                answered.error = reason_in(event.data)
            for choice in chunk.get("choices") or ():
                if piece := choice["delta"].get("content"):
                    answered.ttft_s = answered.ttft_s or time.monotonic() - sent_s
                    pieces.append(piece)
            if usage := chunk.get("usage"):
                answered.output_tokens = usage.get("completion_tokens")
                answered.cost_usd = (usage.get("tokenport") or {}).get("cost_usd", answered.cost_usd)
    if not is_done and answered.error is None:
        answered.error = "the stream ended before [DONE]"
    return "".join(pieces)
