"""Questions with one right answer: what is read, how answers are graded, and what is refused by name."""

import json

import pytest

from serving.errors import TokenportError
from serving.questions import read_questions

GOOD = {"id": "a", "messages": [{"role": "user", "content": "1+1"}], "answer": "2"}


def written(folder, *lines):
    file = folder / "questions.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return file


def test_lines_are_read_in_their_order_and_empty_ones_skipped(tmp_path):
    found = read_questions(written(tmp_path, GOOD, "", GOOD | {"id": "b"}))
    assert [question.identifier for question in found] == ["a", "b"]
    assert found[0].messages == GOOD["messages"]


def test_what_is_a_line_end_to_python_alone_ends_no_line(tmp_path):
    question = GOOD | {"answer": "a\u2028b\x85c"}
    assert read_questions(written(tmp_path, json.dumps(question, ensure_ascii=False), GOOD | {"id": "b"}))[0].answer == question["answer"]


@pytest.mark.parametrize(("given", "quality"), [("2", 1.0), (" 2\n", 1.0), ("3", 0.0), ("", 0.0), (None, 0.0)])
def test_the_right_text_is_right_whatever_the_spaces_around_it(tmp_path, given, quality):
    assert read_questions(written(tmp_path, GOOD))[0].quality(given) == quality


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        (GOOD, "line 2: id 'a' is that of an earlier line"),
        (GOOD | {"id": ""}, "line 2: id is empty"),
        (GOOD | {"id": "b", "messages": []}, "line 2: messages is empty"),
        ([1], "line 2: expected an object with exactly id, messages, answer"),
        ({"id": "a", "messages": []}, "line 2: expected an object with exactly"),
        (GOOD | {"anwser": "2"}, "line 2: expected an object with exactly"),
        (GOOD | {"answer": 2}, "line 2: answer is 2; expected a text"),
        (GOOD | {"messages": "hi"}, 'line 2: messages is "hi"; expected a list'),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, line, told):
    with pytest.raises(TokenportError, match=told):
        read_questions(written(tmp_path, GOOD, line))


def test_a_file_that_is_empty_or_not_there_is_told(tmp_path):
    with pytest.raises(TokenportError, match="has no questions"):
        read_questions(written(tmp_path, ""))
    with pytest.raises(TokenportError, match="cannot be read"):
        read_questions(tmp_path / "missing.jsonl")
