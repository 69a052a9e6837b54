"""What a run sends, and when: the plan that `load/` makes and `client/` carries out. Plain data, the same in every process."""

from dataclasses import dataclass

Message = dict[str, str]
Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text, token ids (completions of vLLM's servers only), or chat messages."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send. `number` is its place in the plan, from 0.

    `at_s`: seconds after the run's start at which it is due; None: as soon as one of the plan's `concurrency` places is free, and in a
    conversation `think_s` after the answer before it. `num_prompt_tokens` is what was asked for (None: whatever the text has), not what the
    server counts. `conversation`: requests with the same number are sent one after the other in the plan's order, each with all messages
    and answers before it put in front; None for a request that stands alone."""

    number: int
    prompt: Prompt
    max_tokens: int
    at_s: float | None = None
    num_prompt_tokens: int | None = None
    ignore_eos: bool = True
    stage: int = 0
    conversation: int | None = None
    think_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of one run, in order. `concurrency`: at most so many at once, None for no bound; in an open loop a request that has to
    wait for a place keeps the time at which it was due. `duration_s`: after it nothing is sent any more, what runs is ended normally.
    `request_timeout_s` counts from the sending of each request to the end of its answer."""

    requests: tuple[Request, ...]
    concurrency: int | None = None
    duration_s: float | None = None
    request_timeout_s: float = 600.0
