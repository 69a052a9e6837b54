"""What the runtime's tests stand on: a scripted container on a real socket, the runtime as a process, clients that talk to it."""

import contextlib
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).parents[2]
ENDPOINT = "chat"
CREDENTIALS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret", "region_name": "eu-west-1"}


@dataclass
class Exchange:
    """One request that reached the scripted container, and the raw connection to answer on."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    connection: socket.socket

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.head(status, content_length=str(len(body)), **headers)
        self.connection.sendall(body)

    def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())

    def begin_stream(self, content_type: str = "text/event-stream", **headers: str) -> None:
        self.head(200, transfer_encoding="chunked", content_type=content_type, **headers)

    def chunk(self, data: bytes) -> None:
        """A chunk; an empty one ends the stream."""
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def left_within(self, deadline_s: float) -> bool:
        """Whether the other side closes the connection in time."""
        self.connection.settimeout(deadline_s)
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


class ScriptedContainer:
    """Answers /ping with `ping_status`, and everything else as `script` does; keeps what it got."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.ping_status = 200
        self.script: Callable[[Exchange], None] = lambda exchange: exchange.answer(exchange.body)
        self.exchanges: list[Exchange] = []

    def handle(self, connection: socket.socket) -> None:
        exchange = _read_request(connection)
        if exchange is None:
            return
        if exchange.path == "/ping":
            exchange.answer(b"", self.ping_status)
            return
        self.exchanges.append(exchange)
        # Clients that leave on purpose end the script in the middle of sending.
        with contextlib.suppress(ConnectionError):
            self.script(exchange)


def _read_request(connection: socket.socket) -> Exchange | None:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return None
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Exchange(method, path, headers, body, connection)


@contextlib.contextmanager
def scripted_container() -> Iterator[ScriptedContainer]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            container.handle(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        container = ScriptedContainer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield container
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def runtime(target: str, *arguments: str) -> Iterator[str]:
    """The runtime as a process of its own; gives its URL."""
    command = [sys.executable, "-m", "container.conformance.runtime", "--target", target, "--port", "0", "--endpoint-name", ENDPOINT]
    # A ping that is late because the tests keep the machine busy is not what they are about.
    defaults = ["--split-seed", "7", "--ping-timeout-s", "30"]
    with subprocess.Popen([*command, *defaults, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert match is not None, f"the runtime said {line!r}"
            yield match[0]
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextlib.contextmanager
def boto_client(url: str, **config: Any) -> Iterator[Any]:
    """boto3's own client for the runtime; tries once unless told otherwise."""
    settings: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, "connect_timeout": 10} | config
    with contextlib.closing(boto3.client("sagemaker-runtime", endpoint_url=url, config=Config(**settings), **CREDENTIALS)) as client:
        yield client


def aws(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real `aws` command, with credentials that exist nowhere."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": CREDENTIALS["region_name"],
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    command = [sys.executable, "-m", "awscli", "--endpoint-url", url, "sagemaker-runtime", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


def until(condition: Callable[[], bool], deadline_s: float = 5) -> bool:
    """Whether the condition becomes true in time."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > deadline_s:
            return False
        time.sleep(0.01)
    return True
