"""Files of prompts: JSON lines or plain text, and what is wrong with them by line."""

import pytest

from benchmarks.load.prompts_file import FilePrompt, read_prompts
from serving.errors import BenchmarkError


@pytest.fixture
def prompts(tmp_path):
    def read(text):
        (tmp_path / "prompts").write_text(text, encoding="utf-8")
        return read_prompts(tmp_path / "prompts")

    return read


def test_json_lines(prompts):
    read = prompts('{"prompt": "Why?", "max_tokens": 9}\n\n{"messages": [{"role": "system", "content": "Be brief."}]}\n')
    assert read == [FilePrompt("Why?", 9), FilePrompt(({"role": "system", "content": "Be brief."},), None)]


def test_plain_text_is_a_prompt_a_line(prompts):
    assert prompts("Why?\n\n  How? \n") == [FilePrompt("Why?"), FilePrompt("How?")]


def test_a_line_separator_inside_a_text_ends_no_line(prompts):
    assert prompts('{"prompt": "one\u2028two"}\n') == [FilePrompt("one\u2028two")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n", "--prompts {file}: the file has no prompts"),
        ('{"prompt": "a"}\nb\n', "{file} line 2 is no JSON"),
        ('{"prompt": ""}\n', "{file} line 1 prompt must be a text, and is ''"),
        ('{"prompt": [1, 2]}\n', "{file} line 1 prompt must be a text, and is [1, 2]"),
        ('{"max_tokens": 3}\n', "{file} line 1 must have a prompt or messages"),
        ('{"prompt": "a", "messages": []}\n', "{file} line 1 has both prompt and messages"),
        ('{"messages": []}\n', "{file} line 1 messages must be a list of at least one message"),
        ('{"messages": [{"role": "user"}]}\n', "{file} line 1 each of messages must have role and content"),
        ('{"prompt": "a", "max_tokens": 0}\n', "{file} line 1 max_tokens must be a whole number of at least 1, and is 0"),
        ('{"prompt": "a", "temperature": 0}\n', "{file} line 1 has an unknown field 'temperature': known are prompt, messages, max_tokens"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(prompts, tmp_path, text, told):
    with pytest.raises(BenchmarkError) as error:
        prompts(text)
    assert str(error.value).startswith(told.replace("{file}", str(tmp_path / "prompts")))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BenchmarkError, match=r"--prompts .*: the file cannot be read"):
        read_prompts(tmp_path / "none")
