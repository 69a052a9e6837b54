"""The `inputs`/`parameters` form: what the engine is asked, and what the client gets back."""

import json

import pytest

from tests.api.conftest import ScriptedChunks


def choice(text, ids, tokens, finish=None, stop=None):
    logprobs = {"tokens": tokens, "token_logprobs": [-0.5] * len(ids)}
    return {"text": text, "token_ids": ids, "logprobs": logprobs, "finish_reason": finish, "stop_reason": stop}


def chunk(*args, **kwargs):
    return json.dumps({"choices": [choice(*args, **kwargs)]})


async def asked(client, engine, **body):
    engine.answer = json.dumps({"choices": [choice("x", [1], ["x"], "length")]}).encode()
    answer = await client.post("/invocations", json={"inputs": "Hello", **body})
    assert answer.status_code == 200, answer.text
    return engine.asked[-1][1]


async def test_plain_inputs_are_a_greedy_completion_of_100_tokens(client, engine):
    body = await asked(client, engine)
    assert (body["prompt"], body["max_tokens"], body["temperature"], body["stream"]) == ("Hello", 100, 0.0, False)


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [({}, 0.0), ({"do_sample": True}, 1.0), ({"temperature": 0.7}, 0.7), ({"top_p": 0.9}, 1.0), ({"do_sample": False, "top_k": 5}, 1.0)],
)
async def test_sampling_follows_tgi(client, engine, parameters, temperature):
    assert (await asked(client, engine, parameters=parameters))["temperature"] == temperature


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"max_new_tokens": 5}, {"max_tokens": 5}),
        ({"min_new_tokens": 2}, {"min_tokens": 2}),
        ({"stop": ["a"], "stop_sequences": ["b"]}, {"stop": ["a", "b"]}),
        ({"return_full_text": True}, {"echo": True}),
        ({"truncate": 7}, {"truncate_prompt_tokens": 7}),
        ({"seed": 3, "repetition_penalty": 1.1}, {"seed": 3, "repetition_penalty": 1.1}),
        ({"grammar": {"type": "regex", "value": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
        ({"grammar": {"type": "json_schema", "value": {"type": "object"}}}, {"structured_outputs": {"json": {"type": "object"}}}),
        ({"adapter_id": "lora"}, {"model": "lora"}),
        ({"details": True}, {"logprobs": 0}),
        ({"watermark": False, "best_of": 1, "typical_p": 1.0, "seed": None}, {"prompt": "Hello"}),
    ],
)
async def test_parameters_have_their_effect(client, engine, parameters, expected):
    body = await asked(client, engine, parameters=parameters)
    assert expected.items() <= body.items()


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"inputs": "a", "parameters": {"max_new_token": 3}}, "parameters.max_new_token", "did you mean 'max_new_tokens'"),
        ({"inputs": "a", "parameters": {"max_new_tokens": -1}}, "parameters.max_new_tokens", "greater than or equal to 1 (got '-1')"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "5"}}, "parameters.max_new_tokens", "valid integer"),
        ({"inputs": "a", "parameters": {"temperature": 0}}, "parameters.temperature", "greater than 0"),
        ({"inputs": "a", "parameters": {"watermark": True}}, "parameters.watermark", "False"),
        ({"inputs": "a", "parameters": {"typical_p": 0.9}}, "parameters.typical_p", "greater than or equal to 1"),
        ({"inputs": "a", "parameters": []}, "parameters", "dictionary"),
        ({"inputs": ["a"]}, "inputs", "valid string"),
        ({"inputs": None}, "inputs", "valid string"),
        ({"inputs": ""}, "inputs", "at least 1 character"),
        ({"inputs": "a", "max_tokens": 5}, "max_tokens", "unknown field 'max_tokens'"),
        ({"inputs": "a", "stream": "yes"}, "stream", "valid boolean"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(client, engine, body, param, message):
    answer = await client.post("/invocations", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
    assert not engine.asked


async def test_the_answer_is_generated_text(client, engine):
    engine.answer = json.dumps({"choices": [choice(" world", [5], [" world"], "length")]}).encode()
    assert (await client.post("/invocations", json={"inputs": "Hello"})).json() == {"generated_text": " world"}


@pytest.mark.parametrize(
    ("finish", "stop", "reason"), [("stop", None, "eos_token"), ("stop", "\n", "stop_sequence"), ("length", None, "length")]
)
async def test_details_tell_the_tokens_and_why_it_ended(client, engine, finish, stop, reason):
    engine.answer = json.dumps({"choices": [choice("ab", [5, 6], ["a", "b"], finish, stop)]}).encode()
    answer = (await client.post("/invocations", json={"inputs": "Hello", "parameters": {"details": True}})).json()
    assert answer["details"]["finish_reason"] == reason
    assert answer["details"]["generated_tokens"] == 2
    assert [token["special"] for token in answer["details"]["tokens"]] == [False, reason == "eos_token"]


async def test_the_stream_has_one_event_a_token_and_ends_with_the_whole_text(client, engine):
    engine.answer = ScriptedChunks([chunk("a", [1], ["a"]), chunk("bc", [2, 3], ["b", "c"]), chunk("", [4], ["</s>"], "stop")])
    answer = await client.post("/invocations", json={"inputs": "x", "stream": True}, headers={"Accept": "application/jsonlines"})
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [event["index"] for event in events] == [1, 2, 3, 4]
    assert "".join(event["token"]["text"] for event in events) == "abc"
    assert [event["generated_text"] for event in events] == [None, None, None, "abc"]
    assert events[-1]["details"] == {"finish_reason": "eos_token", "generated_tokens": 4, "seed": None}
    assert events[-1]["token"]["special"] is True


async def test_an_error_inside_the_stream_is_passed_on(client, engine):
    engine.answer = ScriptedChunks([chunk("a", [1], ["a"]), '{"error": {"message": "gone"}}'])
    answer = await client.post("/invocations", json={"inputs": "x", "stream": True})
    assert 'data: {"error": {"message": "gone"}}' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
