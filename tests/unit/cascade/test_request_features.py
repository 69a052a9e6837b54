import time
from math import log1p

import pytest

from serving.cascade.request_features import NAMES, PLAIN_NAMES, plain, request_features


def user(text):
    return {"role": "user", "content": text}


WITHOUT_TEXT = ("", [], [{"role": "assistant", "content": None}], [user([{"type": "image_url"}])])


@pytest.mark.parametrize("asked", ["What?", [user("What?")], *WITHOUT_TEXT])
def test_every_feature_is_there_whatever_the_request(asked):
    features = request_features(asked)
    assert set(features) == set(NAMES)
    assert all(isinstance(value, float | int) for value in features.values())


def test_a_prompt_is_one_message_of_the_user():
    assert request_features("What is it?") == request_features([user("What is it?")])


def test_parts_of_text_count_as_text():
    assert request_features([user([{"type": "text", "text": "What is it?"}])]) == request_features("What is it?")


def test_lengths_are_of_the_whole_conversation_and_turns_of_the_user():
    system, assistant = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hi"}
    features = request_features([system, user("Hello"), assistant, user("ok")])
    assert features["log_conversation_characters"] == log1p(len("Be brief.HelloHiok"))
    assert features["log_last_characters"] == log1p(2)
    assert features["num_turns"] == 2
    assert features["has_system_prompt"] == 1


def test_in_plain_numbers_characters_and_words_are_counted():
    features = plain(request_features([user("x" * 123_456_789), {"role": "assistant", "content": "Hi"}, user("one two\nthree?")]))
    assert set(features) == set(PLAIN_NAMES)
    assert features["conversation_characters"] == 123_456_789 + 2 + 14
    assert (features["last_characters"], features["words"], features["line_feeds"], features["questions"]) == (14, 3, 1, 1)


def test_what_the_text_is_like_is_told_of_the_last_message_of_the_user():
    features = request_features([user("x = 12 * 7"), {"role": "assistant", "content": "84"}, user("thanks")])
    assert features["numbers"] == features["math_signs"] == 0


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("math_signs", "What is 12 * 7 + 3?", "What is the capital of France?"),
        ("numbers", "Tom has 3 apples and 4 pears", "Tom has apples and pears"),
        ("code_signs", "def f(x): return {x: x[0]}", "What is a dictionary of lists?"),
        ("code_words", "write a python function", "write a sonnet"),
        ("code_fences", "```\nx\n```", "x"),
        ("non_ascii", "Wo liegt Köln?", "Where is Cologne?"),
        ("english_words", "Where is the capital of France?", "Quelle ville en Italie?"),
        ("questions", "Why? How?", "Tell me why"),
        ("reason_words", "Explain why it rains", "It rains"),
        ("fact_words", "Who wrote it, and when?", "It was written"),
        ("condition_words", "If it rains then we stay", "We stay"),
        ("negations", "Which is not true?", "Which is true?"),
        ("quantity_words", "How many are there in total?", "Where are they?"),
        ("choices", "Which?\nA. one\nB. two", "Which: one, or two"),
        ("capitals", "Ask John Smith", "ask john smith"),
        ("quotes", 'He said "no"', "He said no"),
        ("commas", "a, b, c", "a b c"),
        ("mean_word_characters", "extraordinary circumstances", "a bad day"),
    ],
)
def test_a_feature_grows_with_what_it_is_named_after(name, more, less):
    assert request_features(more)[name] > request_features(less)[name]


def test_a_million_characters_take_no_longer_than_a_page():
    def least_s(text):
        times = []
        for _ in range(10):
            started = time.perf_counter()
            request_features(text)
            times.append(time.perf_counter() - started)
        return min(times)

    assert least_s("a word, " * 125_000) < 20 * least_s("a word, " * 500)
