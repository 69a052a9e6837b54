"""What load is asked for, as plain data: its kind, its times, its lengths, its prompts. Says nothing of how it is asked for or made."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.load.arrivals import Process, Stage
from benchmarks.load.lengths import Distribution, fixed
from benchmarks.load.plan import Plan
from benchmarks.load.prompts import PromptForm
from benchmarks.load.tokenizers import Tokenizer

LoadKind = Literal["closed", "open", "stages", "trace"]

DEFAULT_TOKENS = 128
_DEFAULT_LENGTH = fixed(DEFAULT_TOKENS)
_POISSON = Process()
_NO_PAUSE = fixed(0)
_LEAST_REQUESTS = 50
_REQUESTS_A_PLACE = 10
_OPEN_SECONDS = 30.0
_CLOSED_REQUESTS_PER_PLACE_AND_S = 4.0
"""A closed loop that is ended by the clock must have prompts enough: more than this a place answers in a second only when they are tiny."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`concurrency`: at most so many at once; None, in an open loop only: no bound. `rate`: requests a second, or with `turns`
    conversations. `num_requests` None: see `planned_requests`. `input_length` is the whole prompt as the server counts it, template and
    shared prefix included; with `turns` the first one, and `later_input_length` what is said in each later turn. `max_model_len`: drawn and
    recorded lengths of single prompts are clipped to fit it; None: nothing is clipped."""

    kind: LoadKind = "closed"
    prompt_form: PromptForm = "text"
    concurrency: int | None = 1
    rate: float | None = None
    process: Process = _POISSON
    stages: tuple[Stage, ...] = ()
    num_requests: int | None = None
    duration_s: float | None = None
    input_length: Distribution = _DEFAULT_LENGTH
    later_input_length: Distribution = _DEFAULT_LENGTH
    output_length: Distribution = _DEFAULT_LENGTH
    ignore_eos: bool = True
    prompts_file: Path | None = None
    trace_file: Path | None = None
    trace_speed: float = 1.0
    trace_limit: int | None = None
    shared_prefix_tokens: int = 0
    num_prefixes: int = 1
    turns: Distribution | None = None
    think: Distribution = _NO_PAUSE
    max_model_len: int | None = None
    seed: int = 0
    request_timeout_s: float = 600.0


def planned_requests(options: LoadOptions) -> int | None:
    """How many requests a closed or open loop plans; None where the clock alone decides.

    Without --num-requests: ten a place and at least fifty in a closed loop, half a minute's worth and at least fifty in an open one.
    """
    if options.num_requests is not None:
        return options.num_requests
    if options.kind == "closed":
        places = options.concurrency or 1
        if options.duration_s is None:
            return max(_REQUESTS_A_PLACE * places, _LEAST_REQUESTS)
        return max(math.ceil(_CLOSED_REQUESTS_PER_PLACE_AND_S * places * options.duration_s), _LEAST_REQUESTS)
    if options.kind == "open" and options.duration_s is None:
        return max(math.ceil(_OPEN_SECONDS * (options.rate or 0.0)), _LEAST_REQUESTS)
    return None


def describe(options: LoadOptions, plan: Plan | None = None, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """The load for the result document; with the plan and the tokenizer also what came of it. Only what applies is in it."""
    told = {
        # To readers of results stages are an open loop.
        "kind": "open" if options.kind == "stages" else options.kind,
        "concurrency": options.concurrency,
        "rate": options.rate,
        "prompt_form": options.prompt_form,
        "ignore_eos": options.ignore_eos,
        "duration_s": options.duration_s,
        "seed": options.seed,
        "request_timeout_s": options.request_timeout_s,
        **_times(options),
        **_sizes(options),
    }
    if tokenizer is not None:
        told["tokenizer"] = tokenizer.name
        told["prompt_sizes_are"] = _sizes_are(options, tokenizer)
    return told | (_planned(plan) if plan is not None else {})


def _times(options: LoadOptions) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if options.kind in ("open", "stages"):
        told["arrivals"] = options.process.kind
        told["burstiness"] = options.process.burstiness if options.process.kind == "gamma" else None
    if options.stages:
        told["stages"] = [
            {"first_rate": stage.first_rate, "last_rate": stage.last_rate, "duration_s": stage.duration_s} for stage in options.stages
        ]
    if options.trace_file is not None:
        told |= {"trace": options.trace_file.name, "trace_speed": options.trace_speed, "trace_limit": options.trace_limit}
    return told


def _sizes(options: LoadOptions) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if options.trace_file is None:
        told["output_length"] = options.output_length.text
        if options.prompts_file is None:
            told["input_length"] = options.input_length.text
            told["shared_prefix_tokens"] = options.shared_prefix_tokens
            told["num_prefixes"] = options.num_prefixes if options.shared_prefix_tokens else 0
        told["prompts"] = "the text that comes with the project" if options.prompts_file is None else options.prompts_file.name
    if options.turns is not None:
        told |= {"turns": options.turns.text, "think_s": options.think.text, "later_input_length": options.later_input_length.text}
    return told | {"max_model_len": options.max_model_len}


def _sizes_are(options: LoadOptions, tokenizer: Tokenizer) -> str:
    """In words, for whoever compares what was asked for with what the server counted."""
    if not tokenizer.is_exact:
        return f"estimates: {tokenizer.name}"
    if options.prompt_form == "messages" and tokenizer.count_chat(({"role": "user", "content": "a"},)) is None:
        return "estimates: the chat template is not known and comes on top"
    return "exact"


def _planned(plan: Plan) -> dict[str, Any]:
    inputs = [request.num_prompt_tokens for request in plan.requests if request.num_prompt_tokens is not None]
    outputs = [request.max_tokens for request in plan.requests]
    due = [request.at_s for request in plan.requests if request.at_s is not None]
    return {
        "num_requests": len(plan.requests),
        "num_conversations": len({request.conversation for request in plan.requests if request.conversation is not None}),
        "input_tokens": _range(inputs),
        "max_output_tokens": _range(outputs),
        "last_due_s": max(due, default=None),
    }


def _range(values: list[int]) -> dict[str, float] | None:
    return {"min": min(values), "mean": sum(values) / len(values), "max": max(values)} if values else None
