"""S3 for tests: moto as a server process of its own, and what stands between it and a client."""

import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import httpx

from tests.conftest import free_port

START_DEADLINE_S = 60
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "SECRETEXAMPLE", "AWS_EC2_METADATA_DISABLED": "true"}


def environment(endpoint: str) -> dict[str, str]:
    """What a process needs to find this S3 and nothing of the machine's own."""
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return KEYS | nothing | {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class S3:
    """A running imitation with a client of the tests' own."""

    endpoint: str

    @functools.cached_property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            s3, give_up = S3(f"http://127.0.0.1:{port}"), time.monotonic() + START_DEADLINE_S
            while True:
                try:
                    httpx.get(f"{s3.endpoint}/moto-api/", timeout=5)
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < give_up
                    time.sleep(0.1)
            yield s3
        finally:
            process.kill()


@contextlib.contextmanager
def refusing_s3(status: int, code: str, message: str = "no") -> Iterator[str]:
    """An endpoint that answers everything with one error."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class CuttingProxy:
    """Passes connections on to `port`; the first `num_cut` of them that answer more than `after_bytes` are cut there."""

    def __init__(self, port: int, num_cut: int, after_bytes: int) -> None:
        self._port, self.left, self._after_bytes = port, num_cut, after_bytes
        self._lock = threading.Lock()

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                outer = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pass, args=(inner, outer, None), daemon=True).start()
                threading.Thread(target=self._pass, args=(outer, inner, self._after_bytes), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, cut_after: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                passed += len(data)
                if cut_after is not None and passed > cut_after and self._take_cut():
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _take_cut(self) -> bool:
        with self._lock:
            self.left -= 1
            return self.left >= 0
