"""Plans: from options to requests, for every kind of load."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.load.arrivals import Process, parse_stages
from benchmarks.load.build import LoadOptions, build_plan, describe, warm_up_plan
from benchmarks.load.lengths import fixed, parse_lengths
from benchmarks.load.prompts import FIRST_BLOCK_TOKENS
from benchmarks.load.tokenizers import EstimatingTokenizer
from serving.errors import BenchmarkError

SMALL = LoadOptions(input_length=fixed(40), output_length=fixed(8), num_requests=30)
OPEN = replace(SMALL, kind="open", rate=10.0, concurrency=None)
CHAT = replace(SMALL, prompt_form="messages")
TALK = replace(CHAT, turns=fixed(3), think=fixed(0.5), later_input_length=fixed(9))


def lengths(text):
    return parse_lengths("--input-len", text)


def test_a_closed_loop_is_due_when_a_place_is_free(tokenizer):
    plan = build_plan(replace(SMALL, concurrency=4, duration_s=9.0, request_timeout_s=5.0), tokenizer)
    assert (plan.concurrency, plan.duration_s, plan.request_timeout_s) == (4, 9.0, 5.0)
    assert [request.number for request in plan.requests] == list(range(30))
    assert {(request.at_s, request.max_tokens, request.num_prompt_tokens, request.ignore_eos) for request in plan.requests} == {
        (None, 8, 40, True)
    }
    assert {len(tokenizer.encode(request.prompt)) for request in plan.requests} == {40}
    assert len({request.prompt for request in plan.requests}) == 30


def test_lengths_are_drawn_for_each_request(tokenizer):
    plan = build_plan(replace(SMALL, input_length=lengths("20..60"), output_length=lengths("1..9"), num_requests=200), tokenizer)
    assert all(len(tokenizer.encode(request.prompt)) == request.num_prompt_tokens for request in plan.requests)
    assert {min(r.num_prompt_tokens for r in plan.requests), max(r.num_prompt_tokens for r in plan.requests)} == {20, 60}
    assert {request.max_tokens for request in plan.requests} == set(range(1, 10))


def test_natural_length_lets_the_model_end(tokenizer):
    assert not any(request.ignore_eos for request in build_plan(replace(SMALL, ignore_eos=False), tokenizer).requests)


def test_an_open_loop_has_times(tokenizer):
    times_s = [request.at_s for request in build_plan(OPEN, tokenizer).requests]
    assert len(times_s) == 30
    assert times_s == sorted(times_s)
    assert times_s[-1] == pytest.approx(3.0, abs=2.5)


def test_an_open_loop_with_a_duration_has_what_comes_in_it(tokenizer):
    constant = replace(OPEN, process=Process("constant"), duration_s=2.0, num_requests=None)
    assert len(build_plan(constant, tokenizer).requests) == 20
    assert len(build_plan(replace(constant, num_requests=7), tokenizer).requests) == 7
    with pytest.raises(BenchmarkError, match=r"--rate 0.001: no request is due within the time"):
        build_plan(replace(OPEN, rate=0.001, duration_s=1.0), tokenizer)


def test_requests_know_their_stage(tokenizer):
    staged = replace(OPEN, kind="stages", rate=None, num_requests=None, process=Process("constant"), stages=parse_stages("5/s:2s,10/s:2s"))
    assert [request.stage for request in build_plan(staged, tokenizer).requests] == [0] * 10 + [1] * 20


def test_equal_seeds_make_equal_plans_and_others_do_not(tokenizer):
    plan = build_plan(OPEN, tokenizer)
    assert plan == build_plan(OPEN, tokenizer)
    other = build_plan(replace(OPEN, seed=1), tokenizer)
    assert not {request.prompt for request in plan.requests} & {request.prompt for request in other.requests}
    repeat = build_plan(OPEN, tokenizer, np.random.default_rng([0, 2]))
    assert not {request.prompt for request in plan.requests} & {request.prompt for request in repeat.requests}


def test_another_rate_sends_the_same_prompts(tokenizer):
    slow, fast = (build_plan(replace(OPEN, rate=rate), tokenizer) for rate in (1.0, 50.0))
    assert [request.prompt for request in slow.requests] == [request.prompt for request in fast.requests]


def test_groups_share_a_prefix_and_groups_do_not(tokenizer):
    shared = replace(SMALL, prompt_form="token_ids", shared_prefix_tokens=24, num_prefixes=3, num_requests=60)
    prompts = [request.prompt for request in build_plan(shared, tokenizer).requests]
    assert {len(prompt) for prompt in prompts} == {40}
    assert len({prompt[:24] for prompt in prompts}) == 3
    assert len({prompt[:16] for prompt in prompts}) == 3
    assert len({prompt[24:] for prompt in prompts}) == 60


@pytest.mark.parametrize("form", ["token_ids", "text", "messages"])
def test_warm_up_prompts_are_others_than_those_measured(tokenizer, form):
    options = replace(SMALL, prompt_form=form, num_requests=300, concurrency=20)
    warm_up = warm_up_plan(options, tokenizer)
    assert (len(warm_up.requests), warm_up.concurrency, warm_up.duration_s) == (40, 20, None)
    assert {(request.num_prompt_tokens, request.max_tokens, request.at_s) for request in warm_up.requests} == {(40, 8, None)}
    begins = [
        {tuple(as_ids(tokenizer, request.prompt)[:FIRST_BLOCK_TOKENS]) for request in plan.requests}
        for plan in (warm_up, build_plan(options, tokenizer))
    ]
    assert (len(begins[0]), len(begins[1])) == (40, 300)
    assert not begins[0] & begins[1]


def test_warm_ups_are_two_a_place_and_at_least_four_or_as_many_as_asked(tokenizer):
    assert len(warm_up_plan(SMALL, tokenizer).requests) == 4
    assert len(warm_up_plan(OPEN, tokenizer).requests) == 16
    assert len(warm_up_plan(SMALL, tokenizer, num_requests=3).requests) == 3


def test_chat_prompts_are_exact_with_the_template(tokenizer):
    plan = build_plan(replace(CHAT, input_length=lengths("30..90")), tokenizer)
    assert all(tokenizer.count_chat(request.prompt) == request.num_prompt_tokens for request in plan.requests)


def test_a_prompt_smaller_than_its_template_is_refused_and_a_drawn_one_is_clipped(tokenizer):
    least = tokenizer.count_chat(({"role": "user", "content": "a"},))
    with pytest.raises(BenchmarkError) as error:
        build_plan(replace(CHAT, input_length=fixed(3)), tokenizer)
    assert str(error.value).startswith(f"--input-len 3: must be at least {least}: the template")
    drawn = build_plan(replace(CHAT, input_length=lengths("1..40")), tokenizer)
    assert min(tokenizer.count_chat(request.prompt) for request in drawn.requests) >= least
    with pytest.raises(BenchmarkError, match=r"--input-len 40: must be at least 101"):
        build_plan(replace(SMALL, shared_prefix_tokens=100), tokenizer)


def test_what_the_model_cannot_take_is_refused_and_what_is_drawn_is_clipped(tokenizer):
    with pytest.raises(BenchmarkError, match=r"--input-len 40: the model takes 47 tokens in all, and --output-len is 8"):
        build_plan(replace(SMALL, max_model_len=47), tokenizer)
    assert len(build_plan(replace(SMALL, max_model_len=48), tokenizer).requests) == 30
    wide = replace(SMALL, input_length=lengths("1..500"), output_length=lengths("1..500"), max_model_len=64, num_requests=100)
    sizes = [(request.num_prompt_tokens, request.max_tokens) for request in build_plan(wide, tokenizer).requests]
    assert max(num_input + num_output for num_input, num_output in sizes) == 64
    assert min(min(pair) for pair in sizes) >= 1


def test_conversations_are_turn_after_turn(tokenizer):
    plan = build_plan(replace(TALK, num_requests=7), tokenizer)
    told = [(request.conversation, request.think_s, request.num_prompt_tokens) for request in plan.requests]
    assert told == [(0, 0.0, 40), (0, 0.5, None), (0, 0.5, None), (1, 0.0, 40), (1, 0.5, None), (1, 0.5, None), (2, 0.0, 40)]
    assert tokenizer.count_chat(plan.requests[0].prompt) == 40
    assert len(tokenizer.encode(plan.requests[1].prompt[0]["content"])) == 9


def test_conversations_in_an_open_loop_begin_on_time_and_go_on_by_answers(tokenizer):
    talk = replace(TALK, kind="open", rate=2.0, concurrency=None, process=Process("constant"), num_requests=None, duration_s=2.0)
    times_s = [request.at_s for request in build_plan(talk, tokenizer).requests]
    assert times_s[::3] == [0.0, 0.5, 1.0, 1.5]
    assert set(times_s[1::3] + times_s[2::3]) == {None}
    bounded = build_plan(replace(talk, num_requests=6, duration_s=None), tokenizer)
    assert [request.at_s for request in bounded.requests] == [0.0, None, None, 0.5, None, None]


def test_a_file_of_prompts_is_sent_in_order(tokenizer, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one", "max_tokens": 3}\n{"prompt": "two"}\n')
    asked = replace(SMALL, prompts_file=file, num_requests=None)
    sent = build_plan(asked, tokenizer).requests
    assert [(request.prompt, request.max_tokens, request.num_prompt_tokens) for request in sent] == [("one", 3, None), ("two", 8, None)]
    assert len(build_plan(replace(asked, num_requests=1), tokenizer).requests) == 1
    as_chat = build_plan(replace(asked, prompt_form="messages"), tokenizer).requests
    assert as_chat[0].prompt == ({"role": "user", "content": "one"},)
    timed = build_plan(replace(asked, kind="open", rate=4.0, process=Process("constant"), concurrency=None), tokenizer).requests
    assert [request.at_s for request in timed] == [0.0, 0.25]
    with pytest.raises(BenchmarkError, match=r"--num-requests 3: .* has 2 prompts"):
        build_plan(replace(asked, num_requests=3), tokenizer)
    assert {request.num_prompt_tokens for request in warm_up_plan(asked, tokenizer).requests} == {128}


def test_messages_in_a_file_need_a_chat_route(tokenizer, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "one"}]}\n')
    asked = replace(SMALL, prompts_file=file, num_requests=None)
    assert build_plan(replace(asked, prompt_form="messages"), tokenizer).requests[0].prompt == ({"role": "user", "content": "one"},)
    with pytest.raises(BenchmarkError, match=r"--prompts .*: it has chat messages, which need a chat route: --api chat"):
        build_plan(asked, tokenizer)


def replaying(tmp_path, lines, **changes):
    file = tmp_path / "trace.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return replace(LoadOptions(kind="trace", concurrency=None, trace_file=file), **changes)


def test_a_trace_is_replayed_at_its_times_and_lengths(tokenizer, tmp_path):
    lines = [{"at_s": 10, "input_tokens": 30, "output_tokens": 4}, {"at_s": 12, "prompt": "Who?", "output_tokens": 5}]
    options = replaying(tmp_path, lines, trace_speed=4.0)
    first, second = build_plan(options, tokenizer).requests
    assert (first.at_s, first.num_prompt_tokens, first.max_tokens, len(tokenizer.encode(first.prompt))) == (0.0, 30, 4, 30)
    assert (second.at_s, second.num_prompt_tokens, second.max_tokens, second.prompt) == (0.5, None, 5, "Who?")
    assert len(build_plan(replace(options, trace_limit=1), tokenizer).requests) == 1
    assert {request.num_prompt_tokens for request in warm_up_plan(options, tokenizer, num_requests=30).requests} == {30, 128}
    clipped = build_plan(replace(options, max_model_len=20), tokenizer).requests[0]
    assert (clipped.num_prompt_tokens, clipped.max_tokens) == (16, 4)


def test_a_trace_is_cut_at_the_duration(tokenizer, tmp_path):
    lines = [{"at_s": at_s, "input_tokens": 30, "output_tokens": 4} for at_s in range(6)]
    assert len(build_plan(replaying(tmp_path, lines, duration_s=1.5, trace_speed=2.0), tokenizer).requests) == 3


def test_token_ids_need_the_models_tokenizer():
    with pytest.raises(BenchmarkError, match="prompts of token ids need the model's tokenizer: --tokenizer DIR"):
        build_plan(replace(SMALL, prompt_form="token_ids"), EstimatingTokenizer())


@pytest.mark.parametrize("form", ["messages", "token_ids"])
def test_a_traces_conversations_are_numbered_and_never_token_ids(tokenizer, tmp_path, form):
    lines = [{"at_s": at_s, "input_tokens": 30, "output_tokens": 4, "conversation": name} for at_s, name in enumerate("abab")]
    sent = build_plan(replaying(tmp_path, lines, prompt_form=form), tokenizer).requests
    assert [(request.conversation, request.at_s, request.num_prompt_tokens) for request in sent] == [
        (0, 0.0, 30),
        (1, 1.0, 30),
        (0, 2.0, None),
        (1, 3.0, None),
    ]
    assert all(isinstance(request.prompt, str) == (form == "token_ids") for request in sent)


@pytest.mark.parametrize("form", ["token_ids", "text", "messages"])
def test_mooncakes_blocks_are_shared_as_far_as_its_hashes_are(tokenizer, tmp_path, form):
    lines = [
        {"timestamp": 0, "input_length": 1100, "output_length": 2, "hash_ids": [0, 1, 2]},
        {"timestamp": 1000, "input_length": 1100, "output_length": 2, "hash_ids": [0, 1, 3]},
        {"timestamp": 2000, "input_length": 1100, "output_length": 2, "hash_ids": [0, 4, 5]},
        {"timestamp": 3000, "input_length": 1080, "output_length": 2, "hash_ids": [0, 1, 2]},
        {"timestamp": 3000, "input_length": 540, "output_length": 2, "hash_ids": [9, 10]},
        {"timestamp": 3000, "input_length": 513, "output_length": 2, "hash_ids": [9, 11]},
    ]
    sent = build_plan(replaying(tmp_path, lines, prompt_form=form), tokenizer).requests
    assert [request.at_s for request in sent] == [0.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    ids = [as_ids(tokenizer, request.prompt) for request in sent]
    overhead = tokenizer.count_chat(({"role": "user", "content": "a"},)) - 1 if form == "messages" else 0
    assert [len(each) + overhead for each in ids] == [1100, 1100, 1100, 1080, 540, 513]

    def shared(first, second):
        return next((place for place, pair in enumerate(zip(ids[first], ids[second], strict=False)) if pair[0] != pair[1]), None)

    assert 1024 <= shared(0, 1) < 1040
    assert 512 <= shared(0, 2) < 528
    # The end of the shorter one is cut within a word, so its very last token may be another.
    assert shared(0, 3) is None or shared(0, 3) >= 1080 - overhead - 1
    assert shared(0, 4) < 16
    assert shared(4, 5) is None or 512 - overhead - 1 <= shared(4, 5)


def as_ids(tokenizer, prompt):
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    return list(prompt) if isinstance(prompt[0], int) else tokenizer.encode(prompt[0]["content"])


def test_the_description_says_what_was_asked_and_what_came_of_it(tokenizer):
    told = describe(OPEN, build_plan(OPEN, tokenizer), tokenizer)
    assert (told["kind"], told["rate"], told["concurrency"], told["arrivals"]) == ("open", 10.0, None, "poisson")
    assert (told["input_length"], told["output_length"], told["num_requests"], told["seed"]) == ("40", "8", 30, 0)
    assert told["input_tokens"] == {"min": 40, "mean": 40, "max": 40}
    assert told["prompt_sizes_are"] == "exact"
    assert json.loads(json.dumps(told)) == told


def test_the_description_owns_up_to_estimates(bos_tokenizer):
    assert describe(SMALL, None, EstimatingTokenizer())["prompt_sizes_are"] == "estimates: an estimate of 4 characters a token"
    assert describe(CHAT, None, bos_tokenizer)["prompt_sizes_are"].startswith("estimates: the chat template is not known")


def test_stages_and_traces_are_described():
    staged = replace(OPEN, kind="stages", rate=None, stages=parse_stages("1..2/s:3s"))
    assert (describe(staged)["kind"], describe(staged)["stages"]) == ("open", [{"first_rate": 1.0, "last_rate": 2.0, "duration_s": 3.0}])
    assert describe(TALK)["turns"] == "3"
