"""OpenAI's requests as Converse's, checked by botocore's own model of the service, and Converse's answers as OpenAI's."""

import base64
import json

import botocore.loaders
import botocore.model
import botocore.validate
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

from serving.aws.bedrock_answer import ChunkWriter, completion
from serving.aws.bedrock_model import BedrockModel
from serving.aws.bedrock_parameters import converse_parameters
from serving.aws.bedrock_request import ChatRequest, without_nulls
from serving.errors import InvalidRequest, TierFailure

MODEL = "eu.amazon.nova-lite-v1:0"
USER = {"role": "user", "content": "Hello"}
PNG = base64.b64encode(b"\x89PNG").decode()
FUNCTION = {"name": "weather", "description": "Of a place", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Ulm"}'}}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "user", "content": [{"type": "text", "text": "and welcome"}]},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL | {"id": "call-2"}]},
    {"role": "tool", "tool_call_id": "call-1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call-2", "content": [{"type": "text", "text": "sun"}]},
    {"role": "developer", "content": "Be friendly."},
    {"role": "assistant", "content": "Rain and sun."},
]


@pytest.fixture(scope="module")
def converse_shape():
    described = botocore.loaders.create_loader().load_service_model("bedrock-runtime", "service-2")
    return botocore.model.ServiceModel(described).operation_model("Converse").input_shape


@pytest.fixture
def converse(converse_shape):
    """The parameters of a request, valid for botocore."""

    def parameters(**body):
        made = converse_parameters(ChatRequest.model_validate(without_nulls({"messages": [USER]} | body)), MODEL)
        report = botocore.validate.ParamValidator().validate(made, converse_shape)
        assert not report.has_errors(), report.generate_report()
        return made

    return parameters


def test_text_alone_is_a_message(converse):
    assert converse() == {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "Hello"}]}]}


def test_a_conversation_keeps_its_order_and_its_roles_alternate(converse):
    made = converse(messages=CONVERSATION, tools=[TOOL])
    use = {"name": "weather", "input": {"place": "Ulm"}}
    assert made["system"] == [{"text": "Be brief."}, {"text": "Be friendly."}]
    assert made["messages"] == [
        {"role": "user", "content": [{"text": "Hello"}, {"text": "and welcome"}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "call-1"} | use}, {"toolUse": {"toolUseId": "call-2"} | use}]},
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call-1", "content": [{"text": "rain"}]}},
                {"toolResult": {"toolUseId": "call-2", "content": [{"text": "sun"}]}},
            ],
        },
        {"role": "assistant", "content": [{"text": "Rain and sun."}]},
    ]


def test_what_says_nothing_is_left_out(converse):
    nothing = {"type": "text", "text": ""}
    made = converse(
        messages=[
            {"role": "system", "content": [nothing]},
            {"role": "user", "content": [nothing, {"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "", "reasoning": "Hm."},
            USER,
        ]
    )
    assert made == {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "Hello"}, {"text": "Hello"}]}]}


def test_an_answer_can_be_sent_back_as_it_came(converse):
    message = answered([THOUGHT, {"text": "Which place?"}])["choices"][0]["message"]
    assert converse(messages=[USER, message, USER])["messages"][1] == {"role": "assistant", "content": [{"text": "Which place?"}]}


def test_an_image_that_comes_along(converse):
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    [message] = converse(messages=[{"role": "user", "content": content}])["messages"]
    assert message["content"] == [{"text": "What is it?"}, {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}}]


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("max_tokens", 5, "maxTokens", 5),
        ("max_completion_tokens", 6, "maxTokens", 6),
        ("temperature", 0, "temperature", 0),
        ("temperature", 0.5, "temperature", 0.5),
        ("top_p", 1, "topP", 1),
        ("stop", "END", "stopSequences", ["END"]),
        ("stop", ["A", "B"], "stopSequences", ["A", "B"]),
    ],
)
def test_how_it_is_to_be_generated(converse, field, value, name, expected):
    assert converse(**{field: value})["inferenceConfig"] == {name: expected}


@pytest.mark.parametrize("nothing", [{"stop": None}, {"stop": []}, {"n": 1}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_what_changes_nothing(converse, nothing):
    assert converse(**nothing) == converse()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ("auto", {}),
        ("required", {"toolChoice": {"any": {}}}),
        ({"type": "function", "function": {"name": "weather"}}, {"toolChoice": {"tool": {"name": "weather"}}}),
    ],
)
def test_tools_and_which_of_them(converse, choice, expected):
    spec = {"name": "weather", "description": "Of a place", "inputSchema": {"json": FUNCTION["parameters"]}}
    assert converse(tools=[TOOL], tool_choice=choice)["toolConfig"] == {"tools": [{"toolSpec": spec}], **expected}


def test_a_tool_that_may_not_be_called_is_not_told(converse):
    assert "toolConfig" not in converse(tools=[TOOL], tool_choice="none")


def test_a_function_without_parameters_takes_none(converse):
    [tool] = converse(tools=[{"type": "function", "function": {"name": "now", "strict": True}}])["toolConfig"]["tools"]
    assert tool["toolSpec"] == {"name": "now", "strict": True, "inputSchema": {"json": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("arguments", ["[1]", "{", "text"])
def test_arguments_that_are_no_object_are_the_callers_mistake(converse, arguments):
    call = CALL | {"function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(InvalidRequest) as refused:
        converse(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    assert refused.value.param == "messages[1].tool_calls[0].function.arguments"


def test_an_image_that_is_no_base64_is_the_callers_mistake(converse):
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}]
    with pytest.raises(InvalidRequest) as refused:
        converse(messages=[{"role": "user", "content": content}])
    assert refused.value.param == "messages[0].content[0].image_url.url"


# What there is nothing for.


@pytest.fixture(scope="module")
def model():
    return BedrockModel(MODEL, region="eu-west-1")


def with_content(part: dict) -> dict:
    return {"messages": [USER, {"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"seed": None, "logprobs": None, "n": 1}, None),
        ({"messages": CONVERSATION, "tools": [TOOL], "tool_choice": "auto"}, None),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 0}, "seed"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"temperature": 1.5}, "temperature"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"messages": [USER | {"name": "Ada"}]}, "messages[0].name"),
        ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0]"),
        (with_content({"type": "input_audio", "input_audio": {}}), "messages[1].content[1]"),
        (with_content({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}), "messages[1].content[1].image_url.url"),
        ({"messages": CONVERSATION, "tools": [TOOL], "tool_choice": "none"}, "tool_choice"),
    ],
)
def test_the_field_that_has_no_counterpart_is_named(model, body, field):
    assert model.cannot_honour("chat", {"messages": [USER]} | body) == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ({"messages": [USER], "temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
async def test_what_is_wrong_anywhere_is_the_callers_mistake(model, body, field):
    assert model.cannot_honour("chat", body) is None
    with pytest.raises(InvalidRequest) as refused:
        await model.generate("chat", body, "r", deadline_s=60)
    assert refused.value.param == field


def test_completions_have_no_counterpart(model):
    assert model.kinds == {"chat"}


def test_a_field_is_refused_also_where_nobody_asked_before():
    with pytest.raises(ValidationError, match="seed"):
        ChatRequest.model_validate({"messages": [USER], "seed": 1})


# Answers.

USAGE = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "s"}}}
HIDDEN = {"reasoningContent": {"redactedContent": "eA=="}}
USE = {"toolUse": {"toolUseId": "call-1", "name": "weather", "input": {"place": "Ulm"}}}


def answered(blocks: list[dict], reason: str = "end_turn", usage: dict = USAGE) -> dict:
    answer = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": reason, "usage": usage}
    made = json.loads(completion("it", MODEL, "r", answer))
    ChatCompletion.model_validate(made)
    return made


def test_a_whole_answer():
    made = answered([HIDDEN, THOUGHT, {"text": "It "}, {"text": "rains."}, USE], "tool_use")
    assert (made["id"], made["model"]) == ("chatcmpl-r", MODEL)
    [choice] = made["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "It rains.",
        "reasoning": "Hm.",
        "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Ulm"}'}}],
    }


REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("guardrail_intervened", "content_filter"),
    ("content_filtered", "content_filter"),
]


@pytest.mark.parametrize(("told", "expected"), REASONS)
def test_why_it_stopped(told, expected):
    assert answered([{"text": "a"}], told)["choices"][0]["finish_reason"] == expected
    assert streamed(("messageStop", {"stopReason": told}))[0]["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use", "a new one"])
def test_a_reason_without_a_word_for_it_is_a_failure(reason):
    with pytest.raises(TierFailure, match=reason):
        answered([], reason)


def test_usage_counts_the_prompt_whole():
    usage = answered([], usage=USAGE | {"cacheReadInputTokens": 8, "cacheWriteInputTokens": 2})["usage"]
    assert usage == {
        "prompt_tokens": 13,
        "completion_tokens": 5,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    }


def streamed(*events: tuple[str, dict]) -> list[dict]:
    writer = ChunkWriter("it", MODEL, "r")
    made = [json.loads(text) for name, event in events if (text := writer.take(name, event)) is not None]
    for chunk in made:
        ChatCompletionChunk.model_validate(chunk)
    return made


def test_a_stream_with_thoughts_text_and_two_calls():
    made = streamed(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"reasoningContent": {"text": "Hm."}}, "contentBlockIndex": 0}),
        ("contentBlockDelta", {"delta": {"reasoningContent": {"signature": "s"}}, "contentBlockIndex": 0}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockDelta", {"delta": {"text": "It rains."}, "contentBlockIndex": 1}),
        ("contentBlockStart", {"start": {"toolUse": {"toolUseId": "call-1", "name": "weather"}}, "contentBlockIndex": 2}),
        ("contentBlockDelta", {"delta": {"toolUse": {"input": '{"place": '}}, "contentBlockIndex": 2}),
        ("contentBlockDelta", {"delta": {"toolUse": {"input": '"Ulm"}'}}, "contentBlockIndex": 2}),
        ("contentBlockStart", {"start": {"toolUse": {"toolUseId": "call-2", "name": "time"}}, "contentBlockIndex": 3}),
        ("messageStop", {"stopReason": "tool_use"}),
        ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
    )

    def call(index, arguments, **fields):
        name = {"name": fields.pop("name")} if fields else {}
        return {"tool_calls": [{"index": index, **fields, "function": {"arguments": arguments, **name}}]}

    assert [choice["delta"] for chunk in made for choice in chunk["choices"]] == [
        {"role": "assistant", "reasoning": "Hm."},
        {"content": "It rains."},
        call(0, "", id="call-1", type="function", name="weather"),
        call(0, '{"place": '),
        call(0, '"Ulm"}'),
        call(1, "", id="call-2", type="function", name="time"),
        {},
    ]
    assert (made[-2]["choices"][0]["finish_reason"], made[-1]["usage"]["total_tokens"]) == ("tool_calls", 8)


def test_the_role_alone_is_not_said():
    assert streamed(("messageStart", {"role": "assistant"})) == []
