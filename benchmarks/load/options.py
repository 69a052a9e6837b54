"""The load's options on the command line, and what they mean together: every option that would have no effect is refused by name."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.load.arrivals import Process, ProcessKind, parse_stages
from benchmarks.load.lengths import DISTRIBUTION_FORM, fixed, parse_distribution, parse_lengths
from benchmarks.load.prompts import PromptForm
from benchmarks.load.quantities import count, duration_s, positive, wrong
from benchmarks.load.shape import DEFAULT_TOKENS, LoadKind, LoadOptions
from serving.errors import BenchmarkError

_Given = Mapping[str, Any]


# An option, one that it contradicts, and why.
_CONTRADICTIONS = (
    ("rate", "stages", "each says when requests come"),
    ("rate", "trace", "the trace has its own times"),
    ("stages", "trace", "the trace has its own times"),
    ("stages", "duration", "each stage has its own"),
    ("stages", "num_requests", "the stages' rates and durations say how many"),
    ("trace", "num_requests", "write --trace-limit for the first requests of the trace"),
    ("trace", "input_len", "the trace has its own lengths"),
    ("trace", "output_len", "the trace has its own lengths"),
    ("trace", "prompts", "the trace says which prompts"),
    ("trace", "turns", "the trace says which requests are conversations"),
    ("trace", "shared_prefix", "the trace says what is shared"),
    ("prompts", "input_len", "the prompts have their own lengths"),
    ("prompts", "shared_prefix", "the prompts are sent as they are"),
    ("prompts", "turns", "each prompt of the file stands alone"),
    ("turns", "shared_prefix", "a conversation's turns share all before them already"),
)
# An option and those of which it needs at least one.
_NEEDS = (
    ("arrivals", ("rate", "stages")),
    ("burstiness", ("rate", "stages")),
    ("trace_speed", ("trace",)),
    ("trace_limit", ("trace",)),
    ("num_prefixes", ("shared_prefix",)),
    ("think", ("turns",)),
    ("later_input_len", ("turns",)),
)


_PLACEHOLDER_RATE = "1"

_TIMES = (
    (
        "--concurrency N",
        "closed loop: so many requests at once (default: 1); with --rate, --stages or --trace: at most so many, and one that waits for a "
        "place keeps the time at which it was due (default: no bound)",
    ),
    (
        "--num-requests N",
        "so many in all (default: 10 for each of --concurrency or 30 s of --rate, at least 50; all of a --prompts file; with --duration "
        "what comes in that time, for which a closed loop keeps 4 a second ready for each of --concurrency)",
    ),
    ("--duration TIME", "send for so long (60s, 5m), or until --num-requests are sent; what runs then is waited for"),
    ("--rate R", "open loop: so many requests a second, or with --turns conversations, however slow the answers are"),
    ("--burstiness B", "gamma arrivals of this shape: 1 is Poisson, below it burstier, above it more even"),
    (
        "--stages LIST",
        "open loop in stages, RATE/s:DURATION with commas between: 2/s:30s,4/s:1m; FROM..TO in the place of RATE is a ramp: 1..8/s:60s",
    ),
    (
        "--trace FILE",
        "send at the times and with the lengths of recorded traffic: Tokenport's own JSON lines (at_s, output_tokens, input_tokens or "
        "prompt or messages, conversation), Mooncake's, Azure's CSV of LLM inference or BurstGPT's; which one is seen from the file",
    ),
    ("--trace-speed F", "F times as fast as it was recorded (default: 1)"),
    ("--trace-limit N", "only the first N requests of the trace"),
    ("--request-timeout TIME", "an answer that takes longer is given up and counts as failed (default: 600s)"),
)
_REQUESTS = (
    ("--input-len SPEC", f"tokens of each prompt as the server counts them, chat template included (default: {DEFAULT_TOKENS})"),
    ("--output-len SPEC", f"tokens of each answer, exactly so many unless --natural-length (default: {DEFAULT_TOKENS})"),
    (
        "--prompts FILE",
        'send these: JSON lines of {"prompt": TEXT} or {"messages": [...]} with an optional "max_tokens", or plain text, a prompt a line '
        "(default: pieces of a text that comes with Tokenport, no two alike)",
    ),
    ("--shared-prefix N", "the first N of each prompt's own tokens are the same within a group; they count as part of --input-len"),
    ("--num-prefixes N", "so many groups, each prompt in one at random (default: 1)"),
    ("--turns SPEC", "conversations of so many turns, each sent with all that was said before; --num-requests counts turns"),
    ("--think SPEC", "seconds from an answer's end to the next turn (default: 0)"),
    ("--later-input-len SPEC", "tokens said in each turn after the first, without the template (default: --input-len)"),
    (
        "--tokenizer DIR",
        "count tokens with this folder's tokenizer.json and chat template (default: the server's /tokenize; without either, lengths are "
        "estimates and the result says so)",
    ),
    ("--seed N", "equal seeds make equal loads (default: 0)"),
)


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """How requests come and what is in them."""
    times = parser.add_argument_group(
        "when requests come", "Without --rate, --stages or --trace: a closed loop, always --concurrency at once."
    )
    _add(times, _TIMES)
    times.add_argument("--arrivals", choices=get_args(ProcessKind), help="how the gaps of --rate and --stages vary (default: poisson)")
    requests = parser.add_argument_group("what requests are", "A SPEC is " + DISTRIBUTION_FORM.removeprefix("must be ") + ".")
    _add(requests, _REQUESTS)
    requests.add_argument(
        "--natural-length", action="store_true", help="let the model end its answer before --output-len, rather than ignore its end token"
    )


def _add(group: argparse._ArgumentGroup, options: Sequence[tuple[str, str]]) -> None:
    """Values stay text until `load_options`, whose errors say what would be right."""
    for written, told in options:
        option, metavar = written.split()
        group.add_argument(option, metavar=metavar, help=told)


def load_options(
    options: argparse.Namespace, *, prompt_form: PromptForm = "text", max_model_len: int | None = None, rates_follow: bool = False
) -> LoadOptions:
    """What the options ask for. `prompt_form`: what the target's route takes; `max_model_len`: what the model takes, if known;
    `rates_follow`: the caller puts in rates of its own, so that it is an open loop without --rate too.

    Raises:
        BenchmarkError: an option is malformed, or would have no effect beside another; names it.
    """
    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    if rates_follow:
        given.setdefault("rate", _PLACEHOLDER_RATE)
    _refuse_contradictions(given)
    kind = _kind(given)
    input_length = _value(given, "input_len", parse_lengths, fixed(DEFAULT_TOKENS))
    return LoadOptions(
        kind=kind,
        # What was said before is put in front of each turn, and answers come as text.
        prompt_form="text" if "turns" in given and prompt_form == "token_ids" else prompt_form,
        concurrency=_value(given, "concurrency", count, 1 if kind == "closed" else None),
        rate=_value(given, "rate", positive, None),
        process=_process(given),
        stages=parse_stages(given["stages"]) if "stages" in given else (),
        num_requests=_value(given, "num_requests", count, None),
        duration_s=_value(given, "duration", duration_s, None),
        input_length=input_length,
        later_input_length=_value(given, "later_input_len", parse_lengths, input_length),
        output_length=_value(given, "output_len", parse_lengths, fixed(DEFAULT_TOKENS)),
        ignore_eos="natural_length" not in given,
        prompts_file=_path(given, "prompts"),
        trace_file=_path(given, "trace"),
        trace_speed=_value(given, "trace_speed", positive, 1.0),
        trace_limit=_value(given, "trace_limit", count, None),
        shared_prefix_tokens=_value(given, "shared_prefix", count, 0),
        num_prefixes=_value(given, "num_prefixes", count, 1),
        turns=_value(given, "turns", parse_lengths, None),
        think=_value(given, "think", parse_distribution, fixed(0)),
        max_model_len=max_model_len,
        seed=_value(given, "seed", _seed, 0),
        request_timeout_s=_value(given, "request_timeout", duration_s, 600.0),
    )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _value(given: _Given, name: str, parse: Callable[[str, str], Any], default: Any) -> Any:
    return parse(_option(name), str(given[name])) if name in given else default


def _path(given: _Given, name: str) -> Path | None:
    return Path(given[name]) if name in given else None


def _kind(given: _Given) -> LoadKind:
    if "trace" in given:
        return "trace"
    if "stages" in given:
        return "stages"
    return "open" if "rate" in given else "closed"


def _process(given: _Given) -> Process:
    burstiness: float | None = _value(given, "burstiness", positive, None)
    arrivals = given.get("arrivals", "poisson" if burstiness is None else "gamma")
    if (arrivals == "gamma") != (burstiness is not None):
        raise wrong("--arrivals", arrivals, "gamma and --burstiness go together")
    return Process(arrivals, 1.0 if burstiness is None else burstiness)


def _refuse_contradictions(given: _Given) -> None:
    for name, other, why in _CONTRADICTIONS:
        if name in given and other in given:
            raise BenchmarkError(f"{_option(name)} and {_option(other)} contradict each other: {why}")
    for name, needed in _NEEDS:
        if name in given and not any(one in given for one in needed):
            raise BenchmarkError(f"{_option(name)} {given[name]}: has no effect without {' or '.join(map(_option, needed))}")


def _seed(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise wrong(option, text, "must be a whole number of at least zero")
    return int(text)
