"""`/invocations` in its three forms, streamed and whole, against the real engine."""

import json
import re
import time

import httpx
import pytest

from tests.conftest import MAX_MODEL_LEN, MODEL

pytestmark = pytest.mark.engine
# Questions whose greedy answer is far from a tie, so that rounding on another CPU does not change it.
CHAT = {"messages": [{"role": "user", "content": "What is the chemical symbol for water?"}], "temperature": 0, "max_tokens": 20}
COMPLETION = {"prompt": "The chemical symbol for water is", "temperature": 0, "max_tokens": 5}
TGI = {"inputs": "The chemical symbol for water is", "parameters": {"max_new_tokens": 5}}


def events(text: str) -> list[dict]:
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-2]]


def text_of(form: dict, body: dict) -> str:
    if form is TGI:
        return body["generated_text"]
    choice = body["choices"][0]
    return choice["message"]["content"] if form is CHAT else choice["text"]


@pytest.mark.parametrize("form", [CHAT, COMPLETION, TGI], ids=["messages", "prompt", "inputs"])
def test_whole_answer(http, form):
    answer = http.post("/invocations", json=form)
    assert answer.status_code == 200, answer.text
    assert "H2O" in text_of(form, answer.json()).replace("₂", "2")


@pytest.mark.parametrize("form", [CHAT, COMPLETION, TGI], ids=["messages", "prompt", "inputs"])
@pytest.mark.parametrize("framing", ["sse", "jsonlines"])
def test_streamed_answer_says_the_same(http, form, framing):
    whole = text_of(form, http.post("/invocations", json=form).json())
    accept = {"Accept": "application/jsonlines"} if framing == "jsonlines" else {}
    answer = http.post("/invocations", json=form | {"stream": True}, headers=accept)
    chunks = events(answer.text) if framing == "sse" else [json.loads(line) for line in answer.text.splitlines()]
    if form is TGI:
        streamed = "".join(chunk["token"]["text"] for chunk in chunks)
        assert chunks[-1]["generated_text"] == streamed
    elif form is CHAT:
        streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    else:
        streamed = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert streamed == whole


def test_chunks_arrive_one_by_one_while_tokens_are_made(http):
    arrivals = []
    body = CHAT | {"stream": True, "max_tokens": 40, "ignore_eos": True}
    with http.stream("POST", "/invocations", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.monotonic())
    # Not one a token: of half a character there is no text yet.
    assert len(arrivals) >= 30
    # A buffered answer arrives at once; here the last half takes about half of the time.
    assert (arrivals[-1] - arrivals[len(arrivals) // 2]) > 0.2 * (arrivals[-1] - arrivals[0])


def test_usage_comes_on_request(http):
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    usage = events(http.post("/invocations", json=body).text)[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}, {"model": MODEL}])
def test_absent_null_and_empty_model_mean_the_base_model(http, model):
    assert http.post("/invocations", json=COMPLETION | model).json()["model"] == MODEL


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (COMPLETION | {"max_tokens": -1}, "max_tokens", "must be at least"),
        (COMPLETION | {"max_tokens": "five"}, "max_tokens", "valid integer"),
        (COMPLETION | {"temperature": "hot"}, "temperature", "valid number"),
        (COMPLETION | {"temperature": -0.5}, "temperature", "non-negative"),
        (COMPLETION | {"temprature": 0.5}, "temprature", "did you mean 'temperature'"),
        (COMPLETION | {"stream": True, "stream_options": {"include_usag": True}}, "stream_options.include_usag", "'include_usage'"),
        (COMPLETION | {"seed": 1.5}, "seed", "valid integer"),
        ({"prompt": {"a": 1}}, "prompt", "prompt"),
        (CHAT | {"messages": "hello"}, "messages", "valid list"),
        (CHAT | {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "valid"),
        (CHAT | {"messages": [{"content": "hello"}]}, "messages[0].role", "required"),
        (CHAT | {"messages": [{"role": "user", "content": "hello", "contnt": "x"}]}, "messages[0].contnt", "'content'"),
        (CHAT | {"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
        (CHAT | {"tools": []}, "tools", "empty"),
    ],
)
def test_a_bad_field_is_named_with_what_was_wrong(http, body, param, message):
    answer = http.post("/invocations", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


@pytest.mark.parametrize("path", ["/invocations", "/v1/completions"])
def test_a_prompt_longer_than_the_context_is_told_both_numbers(http, path):
    answer = http.post(path, json={"prompt": "hello " * 3000, "max_tokens": 5})
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert str(MAX_MODEL_LEN) in message
    # vLLM stops counting once the prompt is known to be too long, and says so: "at least".
    numbers = [int(number) for number in re.findall(r"\d+", message)]
    assert any(MAX_MODEL_LEN < number <= 3010 for number in numbers)


def test_an_unknown_model_is_told_the_known_ones(http):
    answer = http.post("/invocations", json=CHAT | {"model": "gpt-4"})
    assert answer.status_code == 404
    assert MODEL in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"prompt": ', b'"text"', b"null", b"\xff\xfe"])
@pytest.mark.parametrize("path", ["/invocations", "/v1/completions", "/v1/chat/completions"])
def test_a_malformed_body_is_a_400_with_an_openai_error(http, path, content):
    answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == 400


@pytest.mark.parametrize("path", ["/invocations", "/v1/completions"])
def test_a_wrong_content_type_is_refused(http, path):
    answer = http.post(path, content=json.dumps(COMPLETION), headers={"Content-Type": "text/csv"})
    assert answer.status_code in (400, 415)
    assert answer.json()["error"]["message"]


def test_what_a_client_was_sent_it_may_send_back(http):
    message = http.post("/invocations", json=CHAT).json()["choices"][0]["message"]
    messages = [*CHAT["messages"], message, {"role": "user", "content": "And for salt?"}]
    assert http.post("/invocations", json=CHAT | {"messages": messages}).status_code == 200


def test_a_grammar_constrains_the_text_generation_form(http):
    body = {"inputs": "Yes or no? ", "parameters": {"max_new_tokens": 5, "grammar": {"type": "regex", "value": "(yes|no)"}}}
    assert http.post("/invocations", json=body).json()["generated_text"] in ("yes", "no")


def test_details_name_the_tokens(http):
    answer = http.post("/invocations", json=TGI | {"parameters": {"max_new_tokens": 3, "details": True}}).json()
    assert answer["details"]["generated_tokens"] == 3
    assert answer["details"]["finish_reason"] == "length"
    assert "".join(token["text"] for token in answer["details"]["tokens"]) == answer["generated_text"]


@pytest.mark.parametrize(
    "path", ["/sleep", "/collective_rpc", "/scale_elastic_ep", "/inference/v1/abort_requests", "/v1/load_lora_adapter"]
)
def test_no_administrative_route_is_reachable(http, path):
    assert http.post(path, json={}).status_code == 404


def test_the_request_id_goes_all_the_way(http, server):
    answer = http.post("/invocations", json=COMPLETION, headers={"X-Request-Id": "trace-me"})
    assert answer.headers["x-request-id"] == "trace-me"
    assert "trace-me" in answer.json()["id"]
    assert any(line.get("request_id") == "trace-me" and line["status"] == 200 for line in server.logged())


def test_neither_prompt_nor_completion_is_logged(http, server):
    httpx.post(f"{server.url}/invocations", json={"prompt": "zyxwv-secret-prompt", "max_tokens": 4}, timeout=60)
    httpx.post(
        f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "zyxwv-secret-prompt"}], "n": 0}, timeout=60
    )
    httpx.post(f"{server.url}/invocations", json={"messages": [{"role": "user", "content": ["zyxwv-secret-prompt"]}]}, timeout=60)
    assert "zyxwv-secret-prompt" not in server.stderr.read_text() + server.stdout.read_text()
