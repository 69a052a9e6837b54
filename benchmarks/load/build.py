"""Makes the plan: times, then lengths, then prompts, each from a random stream of its own, so that another rate sends the same prompts.

Equal options, tokenizer and generator make an equal plan. Warm-up plans draw from words that no measured prompt begins with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.load.arrivals import arrivals_within, first_arrivals, steady
from benchmarks.load.conversations import Turn, draw_turns
from benchmarks.load.lengths import Distribution, fixed
from benchmarks.load.plan import Plan, Request
from benchmarks.load.prompts import NO_PREFIX, Prefix, PromptForm, PromptMaker
from benchmarks.load.prompts_file import read_prompts
from benchmarks.load.quantities import wrong
from benchmarks.load.replay import form_of, prompt_in_form, read, replayed_requests, trace_input_lengths
from benchmarks.load.shape import DEFAULT_TOKENS, LoadOptions, describe, planned_requests
from benchmarks.load.sizes import draw_sizes
from benchmarks.load.text_source import Part, shipped_text
from benchmarks.load.tokenizers import Tokenizer
from serving.errors import BenchmarkError

__all__ = ["LoadOptions", "build_plan", "describe", "warm_up_plan"]

_WARM_UPS_A_PLACE = 2
_LEAST_WARM_UPS = 4
_WARM_UP_PLACES_WITHOUT_BOUND = 8


class Due(NamedTuple):
    """When one request, or one conversation's first, is due (None: when a place is free), and in which stage."""

    at_s: float | None
    stage: int


@dataclass(frozen=True, slots=True)
class _Streams:
    """Independent random streams of one generator."""

    times: np.random.Generator
    lengths: np.random.Generator
    turns: np.random.Generator
    prompts: np.random.Generator


def build_plan(options: LoadOptions, tokenizer: Tokenizer, rng: np.random.Generator | None = None) -> Plan:
    """The requests to measure. `rng` None: from the options' seed; repeats that shall not meet their own prompts in a prefix cache need one
    generator each, such as `default_rng([seed, repeat])`.

    Raises:
        BenchmarkError: the options cannot be carried out; names the option.
    """
    streams = _streams(np.random.default_rng(options.seed) if rng is None else rng)
    trace = read(options) if options.kind == "trace" else None
    form = options.prompt_form if trace is None else form_of(options, trace)
    maker = _maker(tokenizer, form, "measured", streams)
    if trace is not None:
        requests = replayed_requests(options, trace, maker)
    elif options.prompts_file is not None:
        requests = _from_file(options, options.prompts_file, streams)
    elif options.turns is not None:
        requests = _conversations(options, options.turns, maker, streams)
    else:
        requests = _single_requests(options, maker, streams)
    return Plan(tuple(requests), options.concurrency, options.duration_s, options.request_timeout_s)


def warm_up_plan(
    options: LoadOptions, tokenizer: Tokenizer, rng: np.random.Generator | None = None, num_requests: int | None = None
) -> Plan:
    """Requests to send before measuring: a closed loop of the same lengths and concurrency, two a place by default, of other prompts."""
    streams = _streams(np.random.default_rng([options.seed, 1]) if rng is None else rng)
    places = options.concurrency or _WARM_UP_PLACES_WITHOUT_BOUND
    num_planned = max(_WARM_UPS_A_PLACE * places, _LEAST_WARM_UPS) if num_requests is None else num_requests
    maker = _maker(tokenizer, options.prompt_form, "warm-up", streams)
    sizes = draw_sizes(options, _warm_up_lengths(options), num_planned, streams.lengths, least_input=maker.least_tokens())
    requests = (
        Request(number, maker.prompt(num_input), num_output, num_prompt_tokens=num_input, ignore_eos=options.ignore_eos)
        for number, (num_input, num_output) in enumerate(sizes)
    )
    return Plan(tuple(requests), places, None, options.request_timeout_s)


def _streams(rng: np.random.Generator) -> _Streams:
    return _Streams(*rng.spawn(4))


def _maker(tokenizer: Tokenizer, form: PromptForm, part: Part, streams: _Streams) -> PromptMaker:
    if form == "token_ids" and not tokenizer.is_exact:
        raise BenchmarkError("prompts of token ids need the model's tokenizer: --tokenizer DIR, a folder with its tokenizer.json")
    return PromptMaker(tokenizer, form, shipped_text(part), streams.prompts)


def _single_requests(options: LoadOptions, maker: PromptMaker, streams: _Streams) -> Iterator[Request]:
    due = _due(options, planned_requests(options), streams.times)
    least = maker.least_tokens(options.shared_prefix_tokens)
    sizes = draw_sizes(options, options.input_length, len(due), streams.lengths, least_input=least)
    prefixes = _shared_prefixes(options, maker)
    groups = streams.turns.integers(len(prefixes), size=len(due))
    for number, ((at_s, stage), (num_input, num_output), group) in enumerate(zip(due, sizes, groups, strict=True)):
        yield Request(number, maker.prompt(num_input, prefixes[group]), num_output, at_s, num_input, options.ignore_eos, stage)


def _shared_prefixes(options: LoadOptions, maker: PromptMaker) -> list[Prefix]:
    if not options.shared_prefix_tokens:
        return [NO_PREFIX]
    return [maker.prefix(options.shared_prefix_tokens) for _ in range(options.num_prefixes)]


def _conversations(options: LoadOptions, turns: Distribution, maker: PromptMaker, streams: _Streams) -> Iterator[Request]:
    drawn, due = _turns_and_times(options, turns, streams)
    first = draw_sizes(options, options.input_length, len(due), streams.lengths, least_input=maker.least_tokens())
    later = draw_sizes(options, options.later_input_length, len(drawn), streams.lengths, least_input=1)
    for number, turn in enumerate(drawn):
        at_s, stage = due[turn.conversation]
        is_first = turn.place == 0
        num_input, num_output = first[turn.conversation] if is_first else later[number]
        yield Request(
            number,
            maker.prompt(num_input) if is_first else maker.later_turn(num_input),
            num_output,
            at_s=at_s if is_first else None,
            # What the server counts in a later turn has the answers in it, which are not known yet.
            num_prompt_tokens=num_input if is_first else None,
            ignore_eos=options.ignore_eos,
            stage=stage,
            conversation=turn.conversation,
            think_s=turn.think_s,
        )


def _turns_and_times(options: LoadOptions, turns: Distribution, streams: _Streams) -> tuple[list[Turn], list[Due]]:
    """All turns, and when each conversation is due to begin. The clock bounds the conversations, --num-requests their turns together."""
    num_requests = planned_requests(options)
    if num_requests is not None and (options.kind == "closed" or options.duration_s is None):
        # Each conversation has a turn at least, so there are never more conversations than requests.
        drawn = draw_turns(turns, options.think, streams.turns, num_conversations=num_requests, num_requests=num_requests)
        return drawn, _due(options, drawn[-1].conversation + 1, streams.times)
    due = _due(options, None, streams.times)
    return draw_turns(turns, options.think, streams.turns, num_conversations=len(due), num_requests=num_requests), due


def _from_file(options: LoadOptions, path: Path, streams: _Streams) -> Iterator[Request]:
    """The file's prompts in its order, as many as are asked for, else all that there are and that are due in time."""
    prompts = read_prompts(path)
    wanted = len(prompts) if options.num_requests is None else options.num_requests
    if wanted > len(prompts):
        raise wrong("--num-requests", wanted, f"{path} has {len(prompts)} prompts, and one sent again is answered from the prefix cache")
    due = _due(options, wanted, streams.times)
    outputs = options.output_length.draw_lengths(len(due), streams.lengths)
    # A clock may bring fewer than the file has.
    for number, ((at_s, stage), prompt, num_output) in enumerate(zip(due, prompts, outputs, strict=False)):
        content = prompt_in_form(options, "--prompts", prompt.prompt)
        yield Request(number, content, prompt.max_tokens or int(num_output), at_s, None, options.ignore_eos, stage)


def _due(options: LoadOptions, num_planned: int | None, rng: np.random.Generator) -> list[Due]:
    """When things are due: `num_planned` of them, or all that the stages or the duration bring, and never more than planned."""
    if options.kind == "closed":
        return [Due(None, 0)] * (num_planned or 0)
    rate = options.rate or 0.0
    if options.kind == "open" and options.duration_s is None:
        return [Due(float(at_s), 0) for at_s in first_arrivals(options.process, rate, num_planned or 0, rng)]
    times_s, stage_of = arrivals_within(options.process, options.stages or steady(rate, options.duration_s or 0.0), rng)
    if len(times_s) == 0:
        option, value = ("--rate", f"{rate:g}") if options.kind == "open" else ("--stages", "as given")
        raise wrong(option, value, "no request is due within the time: give a higher rate, more time or another --seed")
    return [Due(float(at_s), int(stage)) for at_s, stage in zip(times_s, stage_of, strict=True)][:num_planned]


def _warm_up_lengths(options: LoadOptions) -> Distribution:
    if options.kind == "trace":
        return trace_input_lengths(read(options))
    return fixed(DEFAULT_TOKENS) if options.prompts_file is not None else options.input_length
