"""A trace as requests: its times, its lengths, and prompts that share what the trace's prompts shared."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.load.arrivals import trace_times
from benchmarks.load.lengths import Distribution
from benchmarks.load.plan import Prompt, Request
from benchmarks.load.prompts import NO_PREFIX, Prefix, PromptForm, PromptMaker
from benchmarks.load.quantities import wrong
from benchmarks.load.shape import DEFAULT_TOKENS, LoadOptions
from benchmarks.load.sizes import within_model
from benchmarks.load.traces import MOONCAKE_BLOCK_TOKENS, Trace, TraceEntry, read_trace
from serving.errors import BenchmarkError


def read(options: LoadOptions) -> Trace:
    """The trace that the options name."""
    if options.trace_file is None:
        raise BenchmarkError("--trace FILE: there is none to replay")
    return read_trace(options.trace_file, options.trace_limit)


def form_of(options: LoadOptions, trace: Trace) -> PromptForm:
    """Conversations are not sent as token ids: answers, which go into them, come as text."""
    has_conversations = any(entry.conversation is not None for entry in trace.entries)
    return "text" if has_conversations and options.prompt_form == "token_ids" else options.prompt_form


def trace_input_lengths(trace: Trace) -> Distribution:
    """The lengths of a trace's prompts, to draw warm-ups from."""
    lengths = tuple(float(entry.input_tokens or DEFAULT_TOKENS) for entry in trace.entries)
    return Distribution("file", "as in the trace", lengths)


def replayed_requests(options: LoadOptions, trace: Trace, maker: PromptMaker) -> Iterator[Request]:
    """The trace's requests, as far as the duration goes. Each keeps its time; in a conversation it also waits for the answer before it."""
    times_s = trace_times([entry.at_s for entry in trace.entries], options.trace_speed)
    names = dict.fromkeys(entry.conversation for entry in trace.entries if entry.conversation is not None)
    conversations = {name: conversation for conversation, name in enumerate(names)}
    started: set[str] = set()
    blocks = _Blocks(maker)
    for number, (entry, at_s) in enumerate(zip(trace.entries, times_s, strict=True)):
        if options.duration_s is not None and at_s >= options.duration_s:
            return
        is_later = entry.conversation in started
        started.update([entry.conversation] if entry.conversation is not None else [])
        num_input, num_output = _sizes(options, entry, maker)
        yield Request(
            number,
            prompt=_prompt(options, entry, num_input, maker, blocks, is_later=is_later),
            max_tokens=num_output,
            at_s=float(at_s),
            num_prompt_tokens=None if entry.prompt is not None or is_later else num_input,
            ignore_eos=options.ignore_eos,
            conversation=None if entry.conversation is None else conversations[entry.conversation],
        )


def _sizes(options: LoadOptions, entry: TraceEntry, maker: PromptMaker) -> tuple[int, int]:
    return within_model(options, entry.input_tokens or 1, entry.output_tokens, least_input=maker.least_tokens())


def _prompt(options: LoadOptions, entry: TraceEntry, num_input: int, maker: PromptMaker, blocks: "_Blocks", *, is_later: bool) -> Prompt:
    if entry.prompt is not None:
        return prompt_in_form(options, "--trace", entry.prompt)
    if is_later:
        return maker.later_turn(entry.input_tokens or 1)
    if not entry.hash_ids:
        return maker.prompt(num_input)
    return blocks.ids(entry.hash_ids, num_input) if options.prompt_form == "token_ids" else blocks.text(entry.hash_ids, num_input)


def prompt_in_form(options: LoadOptions, option: str, prompt: Prompt) -> Prompt:
    """A prompt from a file as the target's route takes it: a text becomes a user's message; messages cannot become a text."""
    if options.prompt_form == "messages":
        return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if not isinstance(prompt, str):
        raise wrong(option, options.trace_file or options.prompts_file, "it has chat messages, which need a chat route: --api chat")
    return prompt


class _Blocks:
    """Prompts in which every hash id stands for the same tokens each time. A hash covers all before it, so an id is always at one place."""

    def __init__(self, maker: PromptMaker) -> None:
        self._maker = maker
        self._texts: dict[int, str] = {}
        self._ids: dict[int, tuple[int, ...]] = {}

    def ids(self, hash_ids: tuple[int, ...], num_tokens: int) -> Prompt:
        """As token ids. Blocks are kept as such: the public trace has some hundred million tokens, too many to encode."""
        for hash_id in hash_ids:
            if hash_id not in self._ids:
                self._ids[hash_id] = self._maker.block_ids(MOONCAKE_BLOCK_TOKENS)
        return self._maker.prompt_of_ids(chain.from_iterable(self._ids[hash_id] for hash_id in hash_ids), num_tokens)

    def text(self, hash_ids: tuple[int, ...], num_tokens: int) -> Prompt:
        """As text or messages."""
        for place, hash_id in enumerate(hash_ids):
            if hash_id not in self._texts:
                self._texts[hash_id] = self._maker.block(MOONCAKE_BLOCK_TOKENS, is_first=place == 0)
        made = self._maker.prompt_of(self._joined(hash_ids), num_tokens)
        return made if made is not None else self._maker.prompt(num_tokens, self._whole_blocks(hash_ids, num_tokens))

    def _whole_blocks(self, hash_ids: tuple[int, ...], num_tokens: int) -> Prefix:
        """The blocks that surely fit, for a prompt whose end cannot be cut from its last block to the very number."""
        num_blocks = min(len(hash_ids) - 1, (num_tokens - self._maker.least_tokens()) // MOONCAKE_BLOCK_TOKENS)
        return Prefix(self._joined(hash_ids[:num_blocks]), num_blocks * MOONCAKE_BLOCK_TOKENS) if num_blocks > 0 else NO_PREFIX

    def _joined(self, hash_ids: tuple[int, ...]) -> str:
        return " ".join(self._texts[hash_id] for hash_id in hash_ids)
