"""The official OpenAI client against vLLM's own routes, mounted."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.conftest import MODEL

pytestmark = pytest.mark.engine
QUESTION = [{"role": "user", "content": "What is the chemical symbol for water?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def test_models_lists_the_served_name(client):
    assert [model.id for model in client.models.list()] == [MODEL]


def test_chat_answers(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=20)
    assert "H2O" in answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 20


def test_chat_streams_and_tells_usage_when_asked(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "H2O" in text
    assert chunks[-1].usage.completion_tokens > 1
    assert sum(1 for chunk in chunks if chunk.choices) > 3


def test_completion_answers(client):
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=5)
    assert "Paris" in answer.choices[0].text


def test_a_tool_is_passed_through_to_the_model_and_its_call_comes_back_parsed(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
        max_tokens=60,
    )
    call = answer.choices[0].message.tool_calls[0].function
    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["city"], str)


def test_structured_output_follows_the_schema(client):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green", "blue"]}, "number": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["colour", "number"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Pick a colour and a number."}],
        response_format={"type": "json_schema", "json_schema": {"name": "pick", "schema": schema}},
        max_tokens=60,
        temperature=0,
    )
    pick = json.loads(answer.choices[0].message.content)
    assert pick["colour"] in ("red", "green", "blue")
    assert 1 <= pick["number"] <= 9


def test_the_responses_api_is_there(client):
    answer = client.responses.create(model=MODEL, input="What is the chemical symbol for water?", temperature=0, max_output_tokens=20)
    assert "H2O" in answer.output_text


@pytest.mark.parametrize("model", ["", "smollm2-135m-instruct"])
def test_an_empty_model_is_the_base_model(client, model):
    assert client.chat.completions.create(model=model, messages=QUESTION, max_tokens=1).model == MODEL


def test_an_unknown_model_is_told_the_known_ones(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert "gpt-4" in error.value.message
    assert MODEL in error.value.message
    assert error.value.param == "model"


@pytest.mark.parametrize(
    ("bad", "named"),
    [({"max_tokens": -1}, "max_tokens"), ({"temperature": -1}, "temperature"), ({"max_tokens": "many"}, "max_tokens"), ({"n": 0}, "n")],
)
def test_a_bad_field_is_a_400_that_names_it(client, bad, named):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=QUESTION, extra_body=bad)
    assert named in (error.value.param or "") or named in error.value.message


def test_64_streams_at_once_all_end_as_they_should(client):
    def stream(number: int) -> tuple[int, str | None]:
        chunks = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Count from {number}."}],
            max_tokens=16,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        seen = [chunk.choices[0] for chunk in chunks]
        return len(seen), seen[-1].finish_reason

    with ThreadPoolExecutor(64) as pool:
        ends = list(pool.map(stream, range(64)))
    assert [reason for _, reason in ends] == ["length"] * 64
    assert all(count > 2 for count, _ in ends)
