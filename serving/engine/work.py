"""What the engine was asked for and has not finished, how fast it goes, and when it last got on. No vLLM, no I/O.

Each sequence being generated is a `Ticket`; the engine reports its steps. From these come the size of the queue, the rate in tokens a
second, and whether the engine stands still. A ticket can be cut: its answer then ends early with what there is.
"""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Cut = Literal["deadline", "shutdown"]

_RATE_MEMORY_S = 30.0
"""Busy seconds after which a measurement counts for a third."""
_FIRST_GUESS_TOKENS = 256.0
"""Length of an answer before any has been seen."""


@dataclass
class Scope:
    """One HTTP request or one request on a socket, and how long it may take. `None` is no limit."""

    started: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    stream_deadline_s: float | None = None
    ended_by: Cut | None = None
    """Why an answer in this scope was ended early."""
    headers: dict[str, str] = field(default_factory=dict)
    """What the engine has to say of the answer beside it; read when the answer's own headers go out."""
    caller: str = ""
    """Whose request it is: which of the server's API keys it carries (`key1`, ...), empty where none are set."""
    session: str = ""
    """The session that the request says it belongs to, empty without one."""


current_scope: ContextVar[Scope | None] = ContextVar("current_scope", default=None)
"""The scope that a generation belongs to. Set around the request, read where the engine is asked."""


class Ticket:
    """One sequence in the engine."""

    def __init__(self, num_prompt_tokens: int, max_tokens: int, abort: Callable[[], None]) -> None:
        self.num_prompt_tokens = num_prompt_tokens
        self.max_tokens = max_tokens
        self.num_generated = 0
        self.ended_by: Cut | None = None
        self._abort = abort

    def cut(self, reason: Cut) -> None:
        """End the answer with what there is. May be called again: a sequence on its way into the engine is not there to abort yet."""
        self.ended_by = self.ended_by or reason
        self._abort()


class Work:
    """All tickets, and the engine's pulse."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets: set[Ticket] = set()
        self._elsewhere: set[Ticket] = set()
        self._stepped_at = clock()
        self._waiting_since: float | None = None
        self._rate_tokens = 0.0
        self._rate_s = 0.0
        self._usual_length = _FIRST_GUESS_TOKENS

    @property
    def num_sequences(self) -> int:
        """Sequences begun and not ended."""
        return len(self._tickets)

    @property
    def num_tokens(self) -> float:
        """Tokens still to be processed: prompts not begun, and answers as far as they are expected to go."""
        return sum(self._expected(ticket) for ticket in self._tickets)

    @property
    def tokens_per_s(self) -> float | None:
        """Prompt and generated tokens a second of the time there was work; None before anything was measured."""
        return self._rate_tokens / self._rate_s if self._rate_s else None

    def begin(self, num_prompt_tokens: int, max_tokens: int, abort: Callable[[], None]) -> Ticket:
        """A sequence enters the engine."""
        ticket = Ticket(num_prompt_tokens, max_tokens, abort)
        self._tickets.add(ticket)
        if self._waiting_since is None:
            self._waiting_since = self._clock()
        return ticket

    def begin_elsewhere(self, abort: Callable[[], None]) -> Ticket:
        """An answer that another server gives. It can be cut; to the queue and the pulse of the engine here it is nothing."""
        ticket = Ticket(0, 0, abort)
        self._elsewhere.add(ticket)
        return ticket

    def end(self, ticket: Ticket) -> None:
        """It has left, finished or not."""
        self._tickets.discard(ticket)
        self._elsewhere.discard(ticket)
        if ticket.ended_by is None and ticket.num_generated:
            self._usual_length += 0.1 * (ticket.num_generated - self._usual_length)

    def step(self, num_tokens: int) -> None:
        """The engine finished a step, in which `num_tokens` came to their end: a step of a long prefill has none."""
        now = self._clock()
        if self._waiting_since is not None:
            elapsed_s = now - max(self._stepped_at, self._waiting_since)
            kept = math.exp(-elapsed_s / _RATE_MEMORY_S)
            self._rate_tokens = kept * self._rate_tokens + num_tokens
            self._rate_s = kept * self._rate_s + elapsed_s
        self._stepped_at = now
        self._waiting_since = now if self._tickets else None

    def standstill_s(self) -> float:
        """Seconds for which there has been work and no step. Clients that give up do not end a standstill, a step does."""
        return 0.0 if self._waiting_since is None else self._clock() - self._waiting_since

    def cut_all(self, reason: Cut) -> None:
        """Cut every ticket."""
        for ticket in (*self._tickets, *self._elsewhere):
            ticket.cut(reason)

    def _expected(self, ticket: Ticket) -> float:
        if ticket.num_generated:
            # What is longer than usual already may go on as long again.
            return min(ticket.max_tokens - ticket.num_generated, max(self._usual_length - ticket.num_generated, ticket.num_generated))
        return ticket.num_prompt_tokens + min(ticket.max_tokens, self._usual_length)
