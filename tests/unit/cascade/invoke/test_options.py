"""The words of `tokenport invoke`."""

import io

import pytest

from serving.cascade.invoke.options import Options, Target, read_options


class Terminal(io.StringIO):
    def isatty(self):
        return True


def read(*words: str, stdin: io.StringIO | None = None, **environ: str) -> Options:
    return read_options(words, environ, stdin or io.StringIO(""))


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("http://127.0.0.1:8080/", Target("http", "http://127.0.0.1:8080")),
        ("https://api.example.com/openai/v1", Target("http", "https://api.example.com/openai/v1")),
        ("sagemaker:chat", Target("sagemaker", "chat")),
        ("sagemaker:chat/small", Target("sagemaker", "chat", "small")),
        ("bedrock:eu.amazon.nova-lite-v1:0", Target("bedrock", "eu.amazon.nova-lite-v1:0")),
        ("bedrock:arn:aws:bedrock:eu-west-1:1:provisioned-model/a", Target("bedrock", "arn:aws:bedrock:eu-west-1:1:provisioned-model/a")),
    ],
)
def test_a_target_is_a_server_an_endpoint_a_component_or_a_model(word, target):
    assert read(word, "hello").target == target


@pytest.mark.parametrize(
    "words",
    [
        ("http://h:1", "--max-tokens", "5", "hello", "there"),
        ("http://h:1", "hello", "--max-tokens", "5", "there"),
        ("--max-tokens", "5", "http://h:1", "hello", "there"),
    ],
)
def test_options_may_stand_anywhere(words):
    options = read(*words)
    assert options.body["messages"] == [{"role": "user", "content": "hello there"}]
    assert options.body["max_tokens"] == 5


def test_a_prompt_may_come_from_standard_input():
    assert read("http://h:1", stdin=io.StringIO("line\nline\n")).body["messages"][0]["content"] == "line\nline\n"


def test_what_is_asked():
    body = read("http://h:1", "hello", "--system", "be brief", "--temperature", "0").body
    assert body == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert read("http://h:1", "hello", "--no-stream").body == {"messages": [{"role": "user", "content": "hello"}]}


def test_the_key_is_the_first_that_the_named_variable_holds():
    assert read("http://h:1", "hello", "--api-key-env", "KEYS", KEYS="one, two").api_key == "one"
    assert read("http://h:1", "hello", KEYS="one", TOKENPORT_API_KEY="one").api_key is None


def test_the_region_is_the_one_given_or_the_environments():
    assert read("bedrock:m", "a", AWS_REGION="eu-west-1").region == "eu-west-1"
    assert read("bedrock:m", "a", "--region", "us-east-1", AWS_REGION="eu-west-1").region == "us-east-1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "TARGET"),
        (("ftp://h", "a"), "bedrock:MODEL"),
        (("bedroc:m", "a"), "did you mean bedrock:?"),
        (("sagemaker:e/", "a"), "sagemaker:ENDPOINT"),
        (("sagemaker:", "a"), "sagemaker:ENDPOINT"),
        (("http:///path", "a"), "http://HOST:PORT"),
        (("http://[::1", "a"), "http://HOST:PORT"),
        (("http://h:port", "a"), "http://HOST:PORT"),
        (("http://h:99999", "a"), "http://HOST:PORT"),
        (("http://h/?model=m", "a"), "http://HOST:PORT"),
        (("http://h:1",), "prompt is empty"),
        (("http://h:1", "a", "--max-tokns", "5"), "did you mean --max-tokens?"),
        (("http://h:1", "a", "--max-tokens", "0"), "'0'"),
        (("http://h:1", "a", "--temperature", "-1"), "'-1'"),
        (("http://h:1", "a", "--timeout", "nan"), "'nan'"),
        (("http://h:1", "a", "--timeout", "0"), "'0'"),
        (("http://h:1", "a", "--region", "eu-west-1"), "--region has no meaning"),
        (("bedrock:m", "a", "--model", "n"), "--model has no meaning"),
        (("sagemaker:e", "a", "--route", "chat"), "--route has no meaning"),
        (("http://h:1", "a", "--route", "completions"), "completions"),
        (("sagemaker:e", "a", "--api-key-env", "KEY"), "--api-key-env has no meaning"),
        (("http://h:1", "a", "--api-key-env", "KEY"), "KEY"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(words, told, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(*words)
    line = capsys.readouterr().err
    assert (stopped.value.code, line.count("\n")) == (2, 1)
    assert told in line


def test_standard_input_that_is_no_text_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("http://h:1", stdin=io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert stopped.value.code == 2
    assert "standard input is no text" in capsys.readouterr().err


def test_a_terminal_is_not_waited_for(capsys):
    with pytest.raises(SystemExit):
        read("http://h:1", stdin=Terminal())
    assert "no PROMPT" in capsys.readouterr().err
