"""What a tier is asked besides what the client wants, and that it is taken out again."""

import json

import pytest

from serving.cascade.asked import Asked
from serving.cascade.tokens import tokens_of

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "auto", "prompt": "hi"}


def completion(num_top: int) -> dict:
    """As vLLM answers it for `logprobs: 2`: the token itself, and others."""
    top = dict([(" a", -0.5), (" b", -1.0), (" c", -2.0)][:num_top])
    logprobs = {"tokens": [" a"], "token_logprobs": [-0.5], "top_logprobs": [top], "text_offset": [0]}
    return {"choices": [{"index": 0, "text": " a", "logprobs": logprobs}]}


@pytest.mark.parametrize(
    ("kind", "body", "sent"),
    [
        ("chat", CHAT, {"logprobs": True, "top_logprobs": 2}),
        ("chat", CHAT | {"logprobs": False}, {"logprobs": True, "top_logprobs": 2}),
        ("chat", CHAT | {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}),
        ("chat", CHAT | {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ("chat", CHAT | {"logprobs": True, "top_logprobs": -1}, {"logprobs": True, "top_logprobs": -1}),
        ("completion", TEXT, {"logprobs": 2}),
        ("completion", TEXT | {"logprobs": 0}, {"logprobs": 2}),
        ("completion", TEXT | {"logprobs": 7}, {"logprobs": 7}),
    ],
)
def test_two_likely_tokens_are_asked_of_a_judged_tier(kind, body, sent):
    asked = Asked(kind, body).for_tier({}, is_judged=True, tells_running_usage=False)
    assert {name: asked[name] for name in sent} == sent
    assert "logprobs" not in Asked("chat", CHAT).for_tier({}, is_judged=False, tells_running_usage=False)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("chat", {"logprobs": "yes"}),
        ("chat", {"logprobs": False, "top_logprobs": 3}),
        ("chat", {"logprobs": True, "top_logprobs": "5"}),
        ("chat", {"logprobs": True, "top_logprobs": 1.5}),
        ("chat", {"logprobs": True, "top_logprobs": -5}),
        ("completion", {"logprobs": "2"}),
        ("completion", {"logprobs": -3}),
    ],
)
def test_a_field_that_is_wrong_reaches_the_tier_as_it_is_so_that_it_is_refused_by_name(kind, wrong):
    asked = Asked(kind, (CHAT if kind == "chat" else TEXT) | wrong).for_tier({}, is_judged=True, tells_running_usage=False)
    assert {name: asked[name] for name in wrong} == wrong


def test_what_a_tier_makes_of_such_a_field_is_left_as_it_is():
    """vLLM reads 2.0 as 2."""
    answer = completion(3)
    Asked("completion", TEXT | {"logprobs": 2.0}).restore(answer, is_judged=True)
    assert answer == completion(3)


@pytest.mark.parametrize(
    ("options", "sent"),
    [(None, {"include_usage": True}), ({}, {"include_usage": True}), ({"include_usage": False, "x": 1}, {"include_usage": True, "x": 1})],
)
def test_every_stream_is_asked_for_its_usage(options, sent):
    asked = Asked("chat", CHAT | {"stream": True, "stream_options": options})
    assert asked.for_tier({}, is_judged=False, tells_running_usage=False)["stream_options"] == sent
    assert asked.for_tier({}, is_judged=False, tells_running_usage=True)["stream_options"] == sent | {"continuous_usage_stats": True}


@pytest.mark.parametrize("true", [True, 1, "true"])
def test_a_stream_is_what_vllm_takes_for_one(true):
    asked = Asked("chat", CHAT | {"stream": true})
    assert asked.is_stream
    assert asked.for_tier({}, is_judged=False, tells_running_usage=False)["stream"] is True


@pytest.mark.parametrize("other", [False, None, 0, "false", "maybe", []])
def test_anything_else_is_none_and_stays_as_it_is(other):
    asked = Asked("chat", CHAT | {"stream": other})
    assert not asked.is_stream
    assert asked.for_tier({}, is_judged=False, tells_running_usage=False)["stream"] == other


def test_a_whole_answer_is_asked_for_no_stream_options():
    assert "stream_options" not in Asked("chat", CHAT).for_tier({}, is_judged=True, tells_running_usage=True)


@pytest.mark.parametrize(("wanted", "seen"), [(None, None), (0, [" a"]), (1, [" a", " b"]), (2, [" a", " b", " c"])])
def test_of_a_completions_logprobs_the_client_sees_as_many_as_it_asked_for(wanted, seen):
    answer = completion(3)
    Asked("completion", TEXT | ({} if wanted is None else {"logprobs": wanted})).restore(answer, is_judged=True)
    logprobs = answer["choices"][0]["logprobs"]
    assert (logprobs and list(logprobs["top_logprobs"][0])) == seen


def test_the_tokens_of_a_completion_have_their_alternatives():
    assert tokens_of("completion", completion(3)) == [(-0.5, [-0.5, -1.0, -2.0])]


def test_a_token_with_one_alternative_is_not_counted():
    assert tokens_of("completion", completion(1)) == []


def test_the_first_token_of_an_echoed_prompt_has_no_logprob():
    answer = completion(3)
    answer["choices"][0]["logprobs"] |= {"token_logprobs": [None], "top_logprobs": [None]}
    assert tokens_of("completion", answer) == []


def test_answers_without_logprobs_have_no_tokens():
    assert tokens_of("chat", json.loads('{"choices": [{"index": 0, "delta": {}, "logprobs": null}]}')) == []
    assert tokens_of("chat", {"choices": []}) == []


@pytest.mark.parametrize(("said", "sent"), [({}, 0.5), ({"temperature": None}, 0.5), ({"temperature": 0}, 0)])
def test_a_tiers_sampling_holds_where_the_client_says_nothing(said, sent):
    asked = Asked("chat", CHAT | said).for_tier({"temperature": 0.5}, is_judged=False, tells_running_usage=False)
    assert asked["temperature"] == sent
