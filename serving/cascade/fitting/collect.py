"""Outcome files out of questions: every tier of a running server is asked every question, and its answer graded.

The tiers are asked by name, so that nothing is decided for them; of each but the last the first tokens' log-probabilities become signals.
A question that a tier did not answer is left out for all, and counted.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from serving.cascade.token_signals import token_signals
from serving.cascade.tokens import tokens_of
from serving.errors import CascadeError, TokenportError
from serving.questions import Question

_HTTP_OK = 200
_COST = "x-tokenport-cost"
_MAX_SHOWN = 300


@dataclass(frozen=True)
class Collector:
    """`url` is the server's root; `tiers` from small to large. `sampling`: fields of the request. `timeout_s`: for one answer."""

    url: str
    headers: Mapping[str, str]
    tiers: Sequence[str]
    hold_tokens: int
    sampling: Mapping[str, Any]
    concurrency: int
    timeout_s: float

    async def collect(self, questions: Sequence[Question]) -> tuple[list[dict[str, Any]], list[str]]:
        """The lines of the outcome file, and for each question that was left out why.

        Raises:
            CascadeError: not one question was answered by all tiers; with the first reason.
        """
        places = asyncio.Semaphore(self.concurrency)
        async with aiohttp.ClientSession(headers=self.headers, timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as session:

            async def line(question: Question) -> dict[str, Any] | str:
                async with places:
                    return await self._line(session, question)

            found = await asyncio.gather(*map(line, questions))
        lines = [one for one in found if not isinstance(one, str)]
        left_out = [one for one in found if isinstance(one, str)]
        if not lines:
            raise CascadeError(f"no question was answered by all of {', '.join(self.tiers)}; the first: {left_out[0]}")
        return lines, left_out

    async def _line(self, session: aiohttp.ClientSession, question: Question) -> dict[str, Any] | str:
        outcomes = {}
        for tier in self.tiers:
            try:
                outcomes[tier] = await self._outcome(session, question, tier, is_last=tier == self.tiers[-1])
            except (TokenportError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                return f"{question.identifier}, {tier}: {str(error) or type(error).__name__}"
        return {"id": question.identifier, "messages": list(question.messages), "outcomes": outcomes}

    async def _outcome(self, session: aiohttp.ClientSession, question: Question, tier: str, *, is_last: bool) -> dict[str, Any]:
        body = {"model": tier, "messages": list(question.messages), **self.sampling}
        if not is_last:
            body |= {"logprobs": True, "top_logprobs": 2}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            text = await response.text()
            if response.status != _HTTP_OK:
                raise CascadeError(f"HTTP {response.status}: {text[:_MAX_SHOWN]}")
            if _COST not in response.headers:
                raise CascadeError(f"the answer has no {_COST}: {self.url} is no server with a cascade")
            cost = float(response.headers[_COST])
        try:
            answer = json.loads(text)
            outcome: dict[str, Any] = {"quality": question.quality(answer["choices"][0]["message"]["content"]), "cost": cost}
        except (ValueError, LookupError, TypeError) as error:
            raise CascadeError(f"something else than an OpenAI answer: {text[:_MAX_SHOWN]}") from error
        if is_last:
            return outcome
        tokens = tokens_of("chat", answer)[: self.hold_tokens]
        if not tokens:
            raise CascadeError("the tier told no log-probabilities: only the last one need not")
        return outcome | {"signals": token_signals(tokens)}
