"""Tiers that do what the test says, a cascade of two of them, and requests for it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from serving.cascade.answers import Answers, Rules
from serving.cascade.asked import Asked
from serving.cascade.breaker import Breaker
from serving.cascade.chain import Limits
from serving.cascade.config import Price
from serving.cascade.costs import Meter
from serving.cascade.policy import FittedOn, Policy, Rule, Stage
from serving.cascade.sticky import Sticky
from serving.cascade.tier import Tier
from serving.engine.work import Scope, Work, current_scope

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
SURE, UNSURE = 0.0, -3.0
STREAM = CHAT | {"stream": True}
ERROR = '{"error": {"message": "m", "type": "t", "param": null, "code": 500}}'
FITTED_ON = FittedOn("sha256:0", 3, 1, 2, 0.95, 0.9, 0, None)


class Chunks:
    """Gives texts one by one. An asyncio.Event among them is waited for, an exception raised."""

    def __init__(self, script: Sequence[Any]) -> None:
        self._script = list(script)
        self.is_closed = False

    def __aiter__(self):
        return self

    async def __anext__(self) -> str:
        while self._script:
            item = self._script.pop(0)
            if isinstance(item, BaseException):
                raise item
            if not isinstance(item, asyncio.Event):
                return item
            await item.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


class Model:
    """A `RemoteModel`. Each request takes the next of `answers`: bytes, Chunks, an exception, or an Event to wait for before the next."""

    def __init__(self, *answers: Any, kinds: Sequence[str] = ("chat", "completion"), cannot: str | None = None) -> None:
        self.answers = list(answers)
        self.kinds = frozenset(kinds)
        self.cannot = cannot
        self.asked: list[dict[str, Any]] = []
        self.request_ids: list[str] = []
        self.was_asked = asyncio.Event()

    def cannot_honour(self, kind, body):
        return self.cannot if self.cannot in body else None

    async def generate(self, kind, body, request_id, *, deadline_s):
        self.asked.append(body)
        self.request_ids.append(request_id)
        self.was_asked.set()
        while True:
            answer = self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            if not isinstance(answer, asyncio.Event):
                return answer
            await answer.wait()

    async def close(self) -> None:
        pass


def tier(name: str, model: Model, *, price: Price | None = None, is_local: bool = False, takes=None, breaker=None) -> Tier:
    price = price or Price(input=1.0, output=2.0)
    return Tier(name, model, Meter(price), breaker or Breaker(5, 30.0), takes or {}, {}, is_local, tells_running_usage=is_local)


def chunk(text: str = "", logprob: float | None = None, **more: Any) -> str:
    """A chunk of a chat stream with one token; the runner-up has the rest of the probability, or nearly."""
    logprobs = None
    if logprob is not None:
        logprobs = {"content": [token(text, logprob)]}
    choice = {"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": None}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}, {"token": "?", "logprob": -4.0}]}


def usage(num_prompt: int, num_completion: int) -> dict[str, int]:
    return {"prompt_tokens": num_prompt, "completion_tokens": num_completion, "total_tokens": num_prompt + num_completion}


def end(num_prompt: int, num_completion: int) -> str:
    """The last chunk of a stream that tells its usage."""
    shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**shared, "choices": [], "usage": usage(num_prompt, num_completion)})


def whole(text: str, *logprobs: float, num_prompt: int = 10) -> bytes:
    """A whole chat answer of as many tokens as there are log-probabilities."""
    told = {"content": [token("t", logprob) for logprob in logprobs]} if logprobs else None
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": told, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage(num_prompt, len(logprobs) or 5)}).encode()


def stream(*texts: str, num_prompt: int = 10) -> Chunks:
    return Chunks([*map(chunk, texts), end(num_prompt, len(texts))])


def draft(*logprobs: float, num_prompt: int = 10, running: bool = True) -> Chunks:
    """A stream of tokens with log-probabilities, which tells with each what has been used."""
    more = [{"usage": usage(num_prompt, number)} if running else {} for number in range(1, len(logprobs) + 1)]
    texts = [chunk(f"d{number}", logprob, **told) for number, (logprob, told) in enumerate(zip(logprobs, more, strict=True))]
    return Chunks([*texts, end(num_prompt, len(logprobs))])


def policy(hold_tokens: int = 2, *, before: Rule | None = None, has_after: bool = True) -> Policy:
    """`small` may answer if the mean log-probability of its first tokens is above -1; otherwise `large` does."""
    after = Rule({"logprob_mean": 10.0}, 10.0, (0.0, 1.0), (0.0, 1.0), 0.5) if has_after else None
    return Policy((Stage("small", before, after, hold_tokens if has_after else 0),), "large", FITTED_ON, {})


SHORT = Rule({"log_conversation_characters": -10.0}, 30.0, (0.0, 1.0), (0.0, 1.0), 0.5)
"""Accepts requests of up to about twenty characters."""


class Setup:
    """A cascade of `small` and `large`, asked within a scope of its own."""

    def __init__(
        self,
        small: Model,
        large: Model,
        *,
        with_policy=None,
        limits=None,
        budget=None,
        deadline_s=30.0,
        sticky_s=0.0,
        breaker_of_large=None,
        **of_small,
    ):
        self.small, self.large = small, large
        price = Price(input=10.0, output=20.0)
        self.tiers = [tier("small", small, is_local=True, **of_small), tier("large", large, price=price, breaker=breaker_of_large)]
        self.work = Work()
        self.sticky = Sticky(sticky_s)
        limits = limits or Limits(first_byte_s=20.0, hold_s=5.0, attempts=1, cost_usd=None)
        self.answers = Answers(Rules(self.tiers, with_policy, limits, deadline_s, budget, self.sticky), self.work)
        self.scope = Scope()

    async def ask(self, body=STREAM, model="auto", kind="chat"):
        self.scope = Scope(caller=self.scope.caller)
        token = current_scope.set(self.scope)
        try:
            return await self.answers.answer(Asked(kind, body), model, "r")
        finally:
            current_scope.reset(token)

    @property
    def tier(self):
        return self.scope.headers["x-tokenport-tier"]

    @property
    def decision(self):
        return self.scope.headers["x-tokenport-decision"]


async def texts_of(chunks: Any) -> list[str]:
    """The contents of a stream's chunks; an error as ERROR, the last usage as USAGE."""
    found = []
    async for text in chunks:
        said = json.loads(text)
        if "error" in said:
            found.append("ERROR")
        elif not said["choices"]:
            found.append("USAGE")
        else:
            found.append(said["choices"][0]["delta"]["content"])
    return found
