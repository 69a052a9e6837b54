"""SageMaker Runtime and Bedrock Runtime as scripts for the scripted container: what they answer, byte by byte, and the models that ask."""

import contextlib
import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from container.conformance.runtime.event_stream import CONTENT_TYPE, encode_exception, encode_message, encode_payload_part
from serving.aws.bedrock_model import BedrockModel
from serving.aws.sagemaker_model import SageMakerModel
from tests.container.runtime_support import ENDPOINT, Exchange, ScriptedContainer

MODEL_ID = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abcdefghijkl"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
WORDS = ["Größe", " 漢字", " 🙂"]
USAGE = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 18, "cacheReadInputTokens": 8, "cacheWriteInputTokens": 2}

Script = Callable[[Exchange], None]


def event(name: str, **payload: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, json.dumps(payload).encode())


def exception(name: str, **payload: Any) -> bytes:
    return encode_exception(name, json.dumps(payload).encode())


def chunk(delta: dict, finish_reason: str | None = None) -> dict:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


SAGEMAKER_CHUNKS = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in WORDS), chunk({}, "stop")]
SAGEMAKER_USAGE = {"choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18}}

SAGEMAKER_LINES = [json.dumps(item, ensure_ascii=False) for item in [*SAGEMAKER_CHUNKS, SAGEMAKER_USAGE]]

STREAMS: dict[str, list[bytes]] = {
    "sagemaker": [
        *(encode_payload_part(f"data: {line}\n\n".encode()) for line in SAGEMAKER_LINES),
        encode_payload_part(b"data: [DONE]\n\n"),
    ],
    "bedrock": [
        event("messageStart", role="assistant"),
        *(event("contentBlockDelta", delta={"text": word}, contentBlockIndex=0) for word in WORDS),
        event("messageStop", stopReason="end_turn"),
        event("metadata", usage=USAGE, metrics={"latencyMs": 7}),
    ],
}
"""A whole stream of each, message by message: the role, three words, the end, usage (and, of SageMaker, `[DONE]`)."""

WHOLE: dict[str, dict[str, Any]] = {
    "sagemaker": {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
        "usage": SAGEMAKER_USAGE["usage"],
    },
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": "".join(WORDS)}]}},
        "stopReason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 7},
    },
}


def streams(messages: Iterable[bytes], *, ends: bool = True) -> Script:
    """Sends the messages, a chunk each; without `ends` the connection is cut after the last."""

    def script(exchange: Exchange) -> None:
        exchange.begin_stream(CONTENT_TYPE)
        for message in messages:
            exchange.chunk(message)
        if ends:
            exchange.chunk(b"")

    return script


def answers(status: int, body: Any, code: str | None = None) -> Script:
    named = {"x_amzn_ErrorType": code} if code else {}
    return lambda exchange: exchange.answer(json.dumps(body).encode(), status, content_type="application/json", **named)


@contextlib.asynccontextmanager
async def model_at(service: str, url: str, **options: Any) -> AsyncIterator[SageMakerModel | BedrockModel]:
    """The model that asks at `url`. Needs credentials in the environment."""
    if service == "sagemaker":
        model: SageMakerModel | BedrockModel = SageMakerModel(ENDPOINT, region="eu-west-1", endpoint_url=url, **options)
    else:
        model = BedrockModel(MODEL_ID, region="eu-west-1", endpoint_url=url, **options)
    try:
        yield model
    finally:
        await model.close()


@contextlib.contextmanager
def tls_in_front_of(container: ScriptedContainer, folder: Path) -> Iterator[tuple[str, Path]]:
    """The same container over TLS: its address, and the certificate that it shows."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            # Clients that do not trust the certificate leave during the handshake.
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as connection:
                container.handle(connection)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}", certificate
        finally:
            server.shutdown()
            thread.join(10)
