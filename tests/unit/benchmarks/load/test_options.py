"""The load's options: defaults, what they mean together, and every contradiction by name."""

import argparse
from pathlib import Path

import pytest

from benchmarks.load.arrivals import Process, Stage
from benchmarks.load.lengths import fixed
from benchmarks.load.options import add_load_options, load_options
from benchmarks.load.shape import LoadOptions, planned_requests
from serving.errors import BenchmarkError


def asked(*words, **known):
    parser = argparse.ArgumentParser()
    add_load_options(parser)
    return load_options(parser.parse_args(words), **known)


def test_without_options_it_is_a_closed_loop_of_one():
    assert asked() == LoadOptions(kind="closed", concurrency=1, input_length=fixed(128), output_length=fixed(128))
    assert planned_requests(asked()) == 50


@pytest.mark.parametrize(
    ("words", "num_requests"),
    [
        (["--concurrency", "4"], 50),
        (["--concurrency", "64"], 640),
        (["--concurrency", "64", "--num-requests", "7"], 7),
        (["--concurrency", "8", "--duration", "1m"], 1920),
        (["--concurrency", "8", "--duration", "1m", "--num-requests", "9"], 9),
        (["--rate", "0.5"], 50),
        (["--rate", "10"], 300),
        (["--rate", "10", "--duration", "60"], None),
        (["--stages", "1/s:9s"], None),
    ],
)
def test_how_many_requests_are_planned(words, num_requests):
    assert planned_requests(asked(*words)) == num_requests


def test_an_open_loop_has_no_bound_unless_one_is_given():
    assert (asked("--rate", "2").kind, asked("--rate", "2").rate, asked("--rate", "2").concurrency) == ("open", 2.0, None)
    assert asked("--rate", "2", "--concurrency", "3").concurrency == 3


def test_a_caller_may_bring_rates_of_its_own():
    options = asked("--burstiness", "2", rates_follow=True)
    assert (options.kind, options.concurrency, options.process.burstiness) == ("open", None, 2.0)
    assert asked("--rate", "3", rates_follow=True).rate == 3.0
    with pytest.raises(BenchmarkError, match="--rate and --trace contradict"):
        asked("--trace", "f", rates_follow=True)


def test_burstiness_is_gamma():
    assert asked("--rate", "2").process == Process("poisson")
    assert asked("--rate", "2", "--burstiness", "0.5").process == Process("gamma", 0.5)
    assert asked("--stages", "1/s:1m", "--arrivals", "constant").process == Process("constant")
    assert asked("--stages", "1/s:1m", "--arrivals", "constant").stages == (Stage(1, 1, 60),)


def test_everything_given_arrives(tmp_path):
    options = asked(
        *("--concurrency", "3", "--num-requests", "9", "--duration", "90s", "--input-len", "64..256", "--output-len", "normal:64,8"),
        *("--natural-length", "--turns", "2..4", "--think", "0.5", "--later-input-len", "20", "--seed", "5", "--request-timeout", "2m"),
        prompt_form="messages",
        max_model_len=2048,
    )
    assert (options.concurrency, options.num_requests, options.duration_s, options.seed) == (3, 9, 90.0, 5)
    assert (options.input_length.text, options.output_length.text, options.later_input_length.text) == ("64..256", "normal:64,8", "20")
    assert (options.turns.text, options.think.values, options.request_timeout_s, options.ignore_eos) == ("2..4", (0.5,), 120.0, False)
    assert (options.prompt_form, options.max_model_len) == ("messages", 2048)
    shared = asked("--shared-prefix", "64", "--num-prefixes", "4")
    assert (shared.shared_prefix_tokens, shared.num_prefixes) == (64, 4)
    replay = asked("--trace", "t.jsonl", "--trace-speed", "2", "--trace-limit", "10")
    assert (replay.kind, replay.trace_file, replay.trace_speed, replay.trace_limit) == ("trace", Path("t.jsonl"), 2.0, 10)
    assert asked("--prompts", "p.txt").prompts_file == Path("p.txt")


def test_later_turns_are_as_long_as_the_first_by_default():
    assert asked("--turns", "3", "--input-len", "40").later_input_length == asked("--input-len", "40").input_length


def test_conversations_are_sent_as_text_where_single_prompts_would_be_token_ids():
    assert asked("--turns", "3", prompt_form="token_ids").prompt_form == "text"
    assert asked(prompt_form="token_ids").prompt_form == "token_ids"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--rate 1 --stages 1/s:1s", "--rate and --stages contradict each other: each says when requests come"),
        ("--rate 1 --trace f", "--rate and --trace contradict each other: the trace has its own times"),
        ("--stages 1/s:1s --trace f", "--stages and --trace contradict each other"),
        ("--stages 1/s:1s --duration 5s", "--stages and --duration contradict each other: each stage has its own"),
        ("--stages 1/s:1s --num-requests 5", "--stages and --num-requests contradict each other"),
        ("--trace f --num-requests 5", "--trace and --num-requests contradict each other: write --trace-limit"),
        ("--trace f --input-len 5", "--trace and --input-len contradict each other"),
        ("--trace f --output-len 5", "--trace and --output-len contradict each other"),
        ("--trace f --prompts p", "--trace and --prompts contradict each other"),
        ("--trace f --turns 2", "--trace and --turns contradict each other"),
        ("--trace f --shared-prefix 2", "--trace and --shared-prefix contradict each other"),
        ("--prompts p --input-len 5", "--prompts and --input-len contradict each other: the prompts have their own lengths"),
        ("--prompts p --shared-prefix 5", "--prompts and --shared-prefix contradict each other"),
        ("--prompts p --turns 5", "--prompts and --turns contradict each other"),
        ("--turns 2 --shared-prefix 5", "--turns and --shared-prefix contradict each other"),
        ("--arrivals constant", "--arrivals constant: has no effect without --rate or --stages"),
        ("--burstiness 2", "--burstiness 2: has no effect without --rate or --stages"),
        ("--trace-speed 2", "--trace-speed 2: has no effect without --trace"),
        ("--trace-limit 2", "--trace-limit 2: has no effect without --trace"),
        ("--num-prefixes 2", "--num-prefixes 2: has no effect without --shared-prefix"),
        ("--think 2", "--think 2: has no effect without --turns"),
        ("--later-input-len 2", "--later-input-len 2: has no effect without --turns"),
        ("--rate 1 --arrivals gamma", "--arrivals gamma: gamma and --burstiness go together"),
        ("--rate 1 --arrivals poisson --burstiness 2", "--arrivals poisson: gamma and --burstiness go together"),
        ("--concurrency 0", "--concurrency 0: must be a whole number of at least 1"),
        ("--num-requests 1.5", "--num-requests 1.5: must be a whole number of at least 1"),
        ("--duration inf", "--duration inf: must be a length of time above zero, such as 60s, 500ms, 1.5m or 2h"),
        ("--duration 0", "--duration 0: must be a length of time above zero"),
        ("--rate inf", "--rate inf: must be a number above zero"),
        ("--rate x", "--rate x: must be a number above zero"),
        ("--rate 1 --burstiness 0", "--burstiness 0: must be a number above zero"),
        ("--trace f --trace-speed 0", "--trace-speed 0: must be a number above zero"),
        ("--seed -1", "--seed -1: must be a whole number of at least zero"),
        ("--turns 0", "--turns 0: "),
        ("--output-len none", "--output-len none: must be a number (128)"),
        ("--request-timeout soon", "--request-timeout soon: must be a length of time"),
    ],
)
def test_what_cannot_be_is_refused_by_name(words, told):
    with pytest.raises(BenchmarkError) as error:
        asked(*words.split())
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("500ms", 0.5), ("1.5m", 90), ("2h", 7200), ("7", 7)])
def test_durations(text, seconds):
    assert asked("--rate", "1", "--duration", text).duration_s == seconds


def test_every_option_is_explained():
    parser = argparse.ArgumentParser()
    add_load_options(parser)
    assert all(action.help for action in parser._actions)
    assert "64..256" in parser.format_help()
