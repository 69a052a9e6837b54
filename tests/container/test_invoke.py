"""`tokenport invoke` against real sockets: a server, an endpoint, Bedrock."""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from serving.__main__ import main
from tests.container.aws_service import MODEL_ID, SAGEMAKER_LINES, STREAMS, WHOLE, WORDS, answers, exception, streams
from tests.container.runtime_support import CREDENTIALS, ENDPOINT, ROOT, scripted_container

TEXT = "".join(WORDS)
LONG_S = 60.0


@pytest.fixture
def service(monkeypatch):
    """A server that is all three: what it answers, each test says."""
    with scripted_container() as service:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        environ = {
            "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": service.url,
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield service


def openai_server(exchange):
    """Lists one model, streams or answers."""
    if exchange.path.endswith("/models"):
        exchange.answer(json.dumps({"data": [{"id": "tiny"}]}).encode())
    elif json.loads(exchange.body).get("stream"):
        exchange.begin_stream()
        for line in SAGEMAKER_LINES:
            exchange.chunk(f"data: {line}\n\n".encode())
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.chunk(b"")
    else:
        exchange.answer(json.dumps(WHOLE["sagemaker"]).encode())


def asked(service) -> dict:
    return json.loads(service.exchanges[-1].body)


def test_a_server_is_asked_for_its_first_model(service, capsys, monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    service.script = openai_server
    assert main(["invoke", service.url, "Hello", "--max-tokens", "9", "--api-key-env", "KEY"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{TEXT}\n"
    assert "first token after" in err
    assert "13 prompt and 5 completion tokens, finished by stop" in err
    assert [exchange.path for exchange in service.exchanges] == ["/v1/models", "/v1/chat/completions"]
    assert {exchange.headers["authorization"] for exchange in service.exchanges} == {"Bearer secret"}
    assert (asked(service)["model"], asked(service)["max_tokens"]) == ("tiny", 9)


@pytest.mark.parametrize(
    ("suffix", "words", "path"),
    [
        ("", ["--model", "tiny"], "/v1/chat/completions"),
        ("/v1", ["--model", "tiny"], "/v1/chat/completions"),
        ("/openai/v2", ["--model", "tiny"], "/openai/v2/chat/completions"),
        ("", ["--model", "tiny", "--route", "invocations"], "/invocations"),
        ("/v1", ["--model", "tiny", "--route", "invocations"], "/invocations"),
    ],
)
def test_where_a_server_is_asked(service, suffix, words, path):
    service.script = openai_server
    assert main(["invoke", service.url + suffix, "Hello", *words]) == 0
    assert [exchange.path for exchange in service.exchanges] == [path]


def test_in_one_piece_as_json_and_quiet(service, capsys):
    service.script = openai_server
    assert main(["invoke", service.url, "Hello", "--no-stream", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (WHOLE["sagemaker"], "")


def test_an_endpoint_with_a_component_and_a_prompt_from_standard_input(service, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    service.script = streams(STREAMS["sagemaker"])
    assert main(["invoke", f"sagemaker:{ENDPOINT}/small", "--region", "eu-west-1"]) == 0
    assert capsys.readouterr().out == f"{TEXT}\n"
    assert service.exchanges[0].headers["x-amzn-sagemaker-inference-component"] == "small"
    assert asked(service)["messages"] == [{"role": "user", "content": "Hello\n"}]


def test_bedrock(service, capsys):
    service.script = streams(STREAMS["bedrock"])
    assert main(["invoke", f"bedrock:{MODEL_ID}", "Hello", "--region", "eu-west-1", "--system", "Be brief."]) == 0
    out, err = capsys.readouterr()
    assert out == f"{TEXT}\n"
    assert "13 prompt and 5 completion tokens" in err
    assert asked(service)["system"] == [{"text": "Be brief."}]


@pytest.mark.parametrize(
    ("target", "script", "told"),
    [
        ("sagemaker:chat", answers(403, {"message": "no right to do so"}, "AccessDeniedException"), "no right to do so"),
        ("sagemaker:chat", streams([*STREAMS["sagemaker"][:3], exception("InternalStreamFailure", Message="oops")]), "oops"),
        ("bedrock:m", answers(429, {"message": "slow down"}, "ThrottlingException"), "slow down"),
        ("bedrock:m", streams(STREAMS["bedrock"][:3]), "in the middle"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_code_1(service, target, script, told, capsys):
    service.script = script
    assert main(["invoke", target, "Hello", "--region", "eu-west-1"]) == 1
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_a_server_that_lists_no_model(service, capsys):
    service.script = lambda exchange: exchange.answer(b'{"data": []}')
    assert main(["invoke", service.url, "Hello"]) == 1
    assert "--model" in capsys.readouterr().err


def test_bedrock_has_nothing_for_a_temperature_above_1(service, capsys):
    assert main(["invoke", "bedrock:m", "Hello", "--region", "eu-west-1", "--temperature", "1.5"]) == 1
    assert "temperature" in capsys.readouterr().err
    assert service.exchanges == []


def left_after_the_first_word(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)


def unread_after_the_first_word(process: subprocess.Popen) -> None:
    process.stdout.close()


@pytest.mark.parametrize(("leave", "code"), [(left_after_the_first_word, 130), (unread_after_the_first_word, 141)])
def test_ctrl_c_and_a_pipe_that_nobody_reads_end_it_and_its_connection(service, leave, code):
    has_left, left = threading.Event(), threading.Event()

    def script(exchange):
        exchange.begin_stream()
        exchange.chunk(f"data: {SAGEMAKER_LINES[1]}\n\n".encode())
        assert has_left.wait(LONG_S)
        exchange.chunk(f"data: {SAGEMAKER_LINES[2]}\n\n".encode())
        if exchange.left_within(LONG_S):
            left.set()

    service.script = script
    command = [sys.executable, "-m", "serving", "invoke", service.url, "--model", "tiny", "Hello"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(len(WORDS[0].encode())) == WORDS[0].encode()
        leave(process)
        has_left.set()
        assert process.wait(LONG_S) == code
        assert process.stderr.read() == b""
    assert left.wait(LONG_S)
