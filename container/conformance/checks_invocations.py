"""`POST /invocations` and the OpenAI path: what is answered, and how wrong requests are refused."""

from typing import Any

import httpx

from container.conformance.check import ASYNC, INF, OPENAI, OWN, STANDARDS, Check, Failed, expect
from container.conformance.client import JSON
from container.conformance.requests import chat, completion, inputs
from container.conformance.server import Server


def _ok(answer: httpx.Response) -> Any:
    expect(answer.status_code == 200, f"{answer.status_code}: {answer.text[:160]}")
    return answer.json()


def _chat(server: Server) -> str:
    choice = _ok(server.client.invoke(chat()))["choices"][0]
    expect(bool(choice["message"]["content"]), "the message is empty")
    return f"{choice['message']['content'][:40]!r}"


def _completion(server: Server) -> str:
    choice = _ok(server.client.invoke(completion()))["choices"][0]
    expect(bool(choice["text"]), "the text is empty")
    return f"{choice['text'][:40]!r}"


def _inputs(server: Server) -> str:
    text = _ok(server.client.invoke(inputs()))["generated_text"]
    expect(bool(text), "generated_text is empty")
    return f"{text[:40]!r}"


def _openai_path(server: Server) -> str:
    whole = _ok(server.client.post("/v1/chat/completions", chat(model="")))
    stream = server.client.stream(chat(model=""), path="/v1/chat/completions").finish()
    expect(stream.is_whole, f"stream: {stream.told}")
    return f'model "" is answered as {whole["model"]!r}; {stream.told}'


def _not_chunked(server: Server) -> str:
    for body in (chat(), completion(), inputs()):
        answer = server.client.invoke(body)
        expect("transfer-encoding" not in answer.headers, f"Transfer-Encoding: {answer.headers.get('transfer-encoding')}")
        length = answer.headers.get("content-length")
        expect(length == str(len(answer.content)), f"Content-Length is {length}, the body has {len(answer.content)} bytes")
    return "Content-Length is there, and right, in all three forms"


def _no_model(server: Server) -> str:
    for model in ("", None):
        _ok(server.client.invoke(chat(model=model)))
    return '"" and null are the model served'


def _unknown_model(server: Server) -> str:
    answer = server.client.invoke(chat(model="no-such-model"))
    expect(answer.status_code in (400, 404), f"{answer.status_code} instead of 404: {answer.text[:80]}")
    names = server.client.model_names()
    expect(any(name in answer.text for name in names) or "no-such-model" in answer.text, f"does not name the model: {answer.text[:160]}")
    return f"{answer.status_code}: {_message(answer)[:80]}"


def _message(answer: httpx.Response) -> str:
    """The text of a JSON error in any of the usual shapes."""
    try:
        told = answer.json()
    except ValueError:
        raise Failed(f"{answer.status_code} whose body is no JSON: {answer.text[:80]!r}") from None
    error = told.get("error", told.get("message", told.get("detail"))) if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not message:
        raise Failed(f"{answer.status_code} with no message: {answer.text[:80]!r}")
    return str(message)


_WRONG: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"messages": [', JSON),
    "an array": (b'[{"prompt": "x"}]', JSON),
    "a string": (b'"hello"', JSON),
    "null": (b"null", JSON),
    "nothing": (b"", JSON),
    "not UTF-8": (b'{"prompt": "\xff"}', JSON),
    "no known form": (b'{"nonsense": 1}', JSON),
    "an image": (b"\x89PNG", "image/png"),
    "nested 100,000 deep": (b"[" * 100_000, JSON),
    "tokens that are text": (b'{"prompt": "x", "max_tokens": "many"}', JSON),
    "tokens below zero": (b'{"prompt": "x", "max_tokens": -5}', JSON),
    "messages without a role": (b'{"messages": [{"content": "x"}]}', JSON),
    "an empty prompt of numbers": (b'{"prompt": [-1, 99999999]}', JSON),
}


def _wrong_bodies(server: Server) -> str:
    wrong = []
    for what, (body, content_type) in _WRONG.items():
        try:
            # A connection of its own: a server may close it after what it did not like.
            answer = server.client.invoke(body, {"Content-Type": content_type, "Connection": "close"})
        except httpx.HTTPError as error:
            wrong.append(f"{what}: {type(error).__name__}")
            continue
        if not 400 <= answer.status_code < 500:
            wrong.append(f"{what}: {answer.status_code}")
            continue
        try:
            _message(answer)
        except Failed as why:
            wrong.append(f"{what}: {why}")
    expect(not wrong, "; ".join(wrong)[:300])
    _ok(server.client.invoke(completion(1)))
    return f"{len(_WRONG)} kinds, each a 4xx with a JSON message; a good request is answered afterwards"


def _unknown_field(server: Server) -> str:
    answer = server.client.invoke(completion(1, max_tokenz=5))
    expect(answer.status_code == 400, f"{answer.status_code}: a misspelt field is ignored")
    expect("max_tokenz" in _message(answer), f"the field is not named: {_message(answer)}")
    return _message(answer)[:80]


CHECKS = (
    Check("chat", "/invocations answers an OpenAI chat request", INF, _chat),
    Check("completion", "/invocations answers an OpenAI completion request", STANDARDS, _completion),
    Check("inputs", "/invocations answers the inputs/parameters form of TGI and LMI", OWN, _inputs),
    Check("openai-path", '/v1/chat/completions answers with model "", whole and streamed', OPENAI, _openai_path),
    Check("not-chunked", "An answer that is not streamed carries Content-Length and is not chunked", ASYNC, _not_chunked),
    Check("model-empty", 'model "" or null means the one served', OPENAI, _no_model),
    Check("model-unknown", "An unknown model is a 404 that names models, never another model's answer", OWN, _unknown_model),
    Check("wrong-bodies", "A wrong body is a 4xx with a JSON error, never a 5xx, and the server lives on", OWN, _wrong_bodies),
    Check("unknown-field", "A field that would be ignored is refused by name", OWN, _unknown_field),
)
