"""Requests through a model's own code, around a scripted engine: what is called with what, what comes out, and what failures look like."""

import asyncio
import json
import logging
import sys
import threading

import httpx
import pytest

from serving.api.app import create_app
from serving.api.custom_code import CustomCode, Script
from serving.errors import InvalidRequest, StartError
from serving.settings import load_settings
from tests.api.conftest import ScriptedChunks

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
CSV_IN = """
from sagemaker_inference import decoder
def input_fn(data, content_type):
    rows = decoder.decode(data, content_type)
    return {"prompt": " ".join(str(int(number)) for number in rows), "max_tokens": 4}
"""
UPPER_OUT = """
def output_fn(prediction, accept):
    return prediction["text"].upper(), "text/x-loud"
"""


@pytest.fixture
async def serve(engine, lifecycle, in_flight, tmp_path, monkeypatch):
    """Start the application with `text` as code/inference.py; gives a client."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    clients = []

    async def started(report):
        pass

    monkeypatch.setattr(engine, "start", started, raising=False)

    async def start(text, **environ):
        path = tmp_path / "inference.py"
        path.write_text(text)
        settings = load_settings([], {"TOKENPORT_CACHE_DIR": str(tmp_path), **environ})
        code = CustomCode(Script(path, tmp_path), settings)
        await code.start(engine, lambda phase, fraction: None)
        transport = httpx.ASGITransport(create_app(engine, settings, lifecycle, in_flight, code), raise_app_exceptions=False)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://test"))
        return clients[-1]

    yield start
    sys.modules.pop("inference", None)
    for client in clients:
        await client.aclose()


async def test_input_fn_alone_makes_the_body_and_the_server_answers_as_ever(serve, engine):
    engine.answer = b'{"text": "four"}'
    client = await serve(CSV_IN)
    answer = await client.post("/invocations", content=b"1,2,3", headers={"Content-Type": "text/csv; charset=utf-8"})
    assert answer.json() == {"text": "four"}
    assert engine.asked[0][:2] == ("completion", {"prompt": "1 2 3", "max_tokens": 4})


async def test_output_fn_alone_gets_the_engines_answer(serve, engine):
    engine.answer = b'{"text": "four"}'
    client = await serve(UPPER_OUT)
    answer = await client.post("/invocations", json=CHAT)
    assert answer.text == "FOUR"
    assert answer.headers["content-type"].startswith("text/x-loud")


async def test_predict_fn_may_ask_the_engine_as_often_as_it_likes(serve, engine):
    engine.answer = b'{"text": "four"}'
    client = await serve("""
def predict_fn(body, model):
    first = model(body)
    later = [model.submit({"prompt": first["text"] + str(n)}) for n in range(2)]
    return [first["text"], *(one.result()["text"] for one in later)]
""")
    answer = await client.post("/invocations", json=CHAT, headers={"X-Request-Id": "chain"})
    assert answer.json() == ["four"] * 3
    assert [body.get("prompt") for _, body, _ in engine.asked] == [None, "four0", "four1"]
    assert len({request_id for _, _, request_id in engine.asked}) == 3
    assert all(request_id.startswith("chain") for _, _, request_id in engine.asked)


async def test_asynchronous_functions_are_awaited(serve, engine):
    engine.answer = b'{"text": "four"}'
    client = await serve("""
import asyncio
async def predict_fn(body, model):
    one, two = await asyncio.gather(*(asyncio.wrap_future(model.submit(body)) for _ in range(2)))
    return one["text"] + two["text"]
""")
    assert (await client.post("/invocations", json=CHAT)).json() == "fourfour"


async def test_what_model_fn_returns_is_the_model_and_the_context_has_the_engine(serve, engine, tmp_path):
    engine.answer = b'{"text": "four"}'
    client = await serve("""
steps = []
def pre_model_fn(model_dir): steps.append("pre")
def model_fn(model_dir, context): steps.append("model"); return {"dir": model_dir}
def model_warmup_fn(model_dir, model, context): steps.append(context.engine({"prompt": "warm"})["text"])
def predict_fn(body, model, context):
    attributes = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    return [model["dir"], context.engine(body)["text"], attributes, *steps]
""")
    answer = await client.post("/invocations", json=CHAT, headers={"X-Amzn-SageMaker-Custom-Attributes": "a=b"})
    assert answer.json() == [str(tmp_path), "four", "a=b", "pre", "model", "four"]


async def test_transform_fn_replaces_all(serve, engine):
    engine.answer = b'{"text": "four"}'
    client = await serve("""
def transform_fn(model, data, content_type, accept):
    return f"{content_type} {data!r} {accept} {model({'prompt': 'x'})['text']}", "text/plain"
""")
    answer = await client.post("/invocations", content=b"ab", headers={"Content-Type": "application/x-own", "Accept": "text/x-own"})
    assert answer.text == "application/x-own b'ab' text/x-own four"


async def test_the_toolkits_encoders_answer_what_accept_asks_for(serve):
    client = await serve("def predict_fn(rows, model): return (rows * 2).astype(int)\n")
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    answer = await client.post("/invocations", content=b"1,2\n3,4", headers=headers)
    assert answer.text.split() == ["2,4", "6,8"]
    refused = await client.post("/invocations", content=b"1,2", headers=headers | {"Accept": "image/png"})
    assert refused.status_code == 406


async def test_a_pickle_in_a_request_is_not_opened(serve, tmp_path):
    import pickle

    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "touched"), "w")

    client = await serve("def predict_fn(rows, model): return 1\n")
    answer = await client.post("/invocations", content=pickle.dumps(Touch()), headers={"Content-Type": "application/x-npy"})
    assert answer.status_code == 400
    assert not (tmp_path / "touched").exists()


async def test_output_fn_gets_each_chunk_of_a_stream(serve, engine):
    engine.answer = chunks = ScriptedChunks(['{"text": "a"}', '{"text": "b"}'])
    client = await serve(UPPER_OUT)
    answer = await client.post("/invocations", json=CHAT | {"stream": True})
    assert answer.text == "AB"
    assert answer.headers["content-type"].startswith("text/x-loud")
    assert chunks.closed


async def test_a_stream_that_predict_fn_passes_on_is_framed_as_ever(serve, engine):
    engine.answer = chunks = ScriptedChunks(['{"text": "a"}', '{"text": "b"}'])
    client = await serve("def predict_fn(body, model): return model(body)\n")
    answer = await client.post("/invocations", json=CHAT | {"stream": True})
    assert answer.text == 'data: {"text": "a"}\n\ndata: {"text": "b"}\n\ndata: [DONE]\n\n'
    assert chunks.closed


async def test_a_generator_streams_what_it_yields(serve, engine):
    engine.answer = ScriptedChunks(['{"text": "a"}', '{"text": "b"}'])
    client = await serve("""
def predict_fn(body, model):
    for chunk in model(body):
        yield {"seen": chunk["text"]}
""")
    answer = await client.post("/invocations", json=CHAT | {"stream": True}, headers={"Accept": "application/jsonlines"})
    assert [json.loads(line)["seen"] for line in answer.text.splitlines()] == ["a", "b"]


async def test_what_fails_before_the_first_chunk_has_its_own_status(serve, engine):
    engine.answer = ScriptedChunks(['{"other": "a"}'])
    client = await serve(UPPER_OUT)
    assert (await client.post("/invocations", json=CHAT | {"stream": True})).status_code == 500


async def test_a_failure_is_told_without_its_traceback_and_logged_without_the_content(serve, caplog):
    client = await serve("def input_fn(data, content_type):\n    raise ValueError(f'bad {data}')\n")
    with caplog.at_level(logging.ERROR):
        answer = await client.post("/invocations", content=b'"zyxwv-secret"', headers={"Content-Type": "application/json"})
    assert answer.status_code == 500
    assert "input_fn" in answer.json()["error"]["message"]
    record = next(record for record in caplog.records if record.name == "tokenport.custom_code")
    assert "inference.py" in record.traceback
    assert "line 2" in record.traceback
    assert "zyxwv-secret" not in answer.text + str(record.__dict__)
    assert "inference.py" not in answer.text


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("from sagemaker_inference.errors import *\ndef input_fn(d, c): raise GenericInferenceToolkitError(422, 'too short')\n", 422),
        ("from sagemaker_inference.errors import *\ndef input_fn(d, c): raise UnsupportedFormatError(c)\n", 415),
        ("from sagemaker_inference.errors import *\ndef output_fn(p, a): raise UnsupportedFormatError(a)\n", 406),
        ("def input_fn(d, c): raise SystemExit(1)\n", 500),
        ("def input_fn(d, c): raise StopIteration\n", 500),
        ("def input_fn(d, c): return [1]\n", 500),
        ("def output_fn(p, a): return object()\n", 500),
        ("def predict_fn(b, model): return object()\n", 500),
        ("def input_fn(d, c): return {'no': 'form'}\n", 400),
    ],
)
async def test_what_the_code_raises_or_returns_has_a_fitting_status_and_the_next_request_is_served(serve, text, status):
    client = await serve(text)
    for _ in range(2):
        answer = await client.post("/invocations", json=CHAT)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["code"] == status


async def test_what_the_engine_refuses_keeps_its_status(serve, engine):
    engine.answer = InvalidRequest("temperature: too hot", param="temperature")
    client = await serve("def predict_fn(body, model): return model(body)\n")
    answer = await client.post("/invocations", json=CHAT)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "temperature"


async def test_code_that_blocks_does_not_hold_up_others_and_runs_on_no_more_threads_than_allowed(serve, tmp_path):
    client = await serve(
        f"""
import pathlib, time
running = []
def transform_fn(model, data, content_type, accept):
    running.append(data)
    num_running = len(running)
    give_up = time.monotonic() + 30
    while not pathlib.Path({str(tmp_path / "go")!r}).exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    running.remove(data)
    return str(num_running)
""",
        TOKENPORT_CUSTOM_CODE_THREADS="2",
    )
    asking = [asyncio.create_task(client.post("/invocations", content=str(number).encode())) for number in range(4)]
    await asyncio.sleep(0.05)
    assert (await client.get("/ping")).status_code == 200
    assert sum(thread.name == "custom-code" for thread in threading.enumerate()) == 2
    assert not any(task.done() for task in asking)
    (tmp_path / "go").touch()
    assert max([int(answer.text) for answer in await asyncio.gather(*asking)]) == 2


async def test_code_that_does_not_return_is_left_at_the_deadline(serve, monkeypatch):
    monkeypatch.setattr("serving.api.custom_calls._GRACE_S", 0.1)
    client = await serve("import time\ndef transform_fn(model, data, c, a): time.sleep(2)\n", TOKENPORT_DEADLINE_S="0.2")
    answer = await asyncio.wait_for(client.post("/invocations", content=b"x"), 1)
    assert answer.status_code == 500
    assert "within 0.2 s" in answer.json()["error"]["message"]


async def test_a_client_that_leaves_takes_its_generation_with_it(serve, engine):
    engine.answer = asyncio.Event()
    client = await serve("def predict_fn(body, model): return model(body)\n")
    asking = asyncio.create_task(client.post("/invocations", json=CHAT))
    await engine.was_asked.wait()
    asking.cancel()
    await asyncio.wait_for(engine.cancelled.wait(), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def model_fn(d):\n    raise OSError('no weights')\ndef predict_fn(b, m): pass\n",
            r"inference.py:2: model_fn failed with OSError: no",
        ),
        (
            "def model_warmup_fn(d, m):\n    1 / 0\ndef predict_fn(b, m): pass\n",
            r"inference.py:2: model_warmup_fn failed with ZeroDivision",
        ),
    ],
)
async def test_a_step_of_the_start_that_fails_stops_it(serve, text, message):
    with pytest.raises(StartError, match=message):
        await serve(text)
