"""The HTTP side of the function: one route, answered piece by piece as the pieces come.

Lambda Web Adapter asks `/ping` until it answers, then passes each invocation on as a request. Invocations come one at a time.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving.aws.lambda_function.models import Answer
from serving.errors import BodyTooLarge, InvalidRequest, RequestError, UnknownRoute

ROUTE = "/v1/chat/completions"
MAX_BODY_BYTES = 6 * 2**20
"""Lambda's own limit (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html), and SageMaker's for a request."""

Ask = Callable[[bytes, str], Answer]


class FunctionServer(ThreadingHTTPServer):
    """Bound to loopback; `serve_forever` runs it."""

    daemon_threads = True

    def __init__(self, ask: Ask, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.ask = ask


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FunctionServer

    def do_GET(self) -> None:
        if self.path == "/ping":
            self._whole(200, b"", {})
        else:
            self._refuse(UnknownRoute(f"there is nothing at {self.path}"))

    def do_POST(self) -> None:
        try:
            body = self._body()
            if self.path != ROUTE:
                raise UnknownRoute(f"there is nothing at {self.path}: POST {ROUTE}")
            answer = self.server.ask(body, self.headers.get("Content-Type", "application/json"))
            # Until the first byte is there, a failure can still be a status.
            first = next(answer.pieces, b"")
        except RequestError as error:
            self._refuse(error)
            return
        self._stream(answer, first)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise InvalidRequest("the request has no Content-Length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise BodyTooLarge(f"the body has {length} bytes; Lambda takes {MAX_BODY_BYTES}")
        return self.rfile.read(int(length))

    def _stream(self, answer: Answer, first: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            # The client may go away: what is not read any more is not generated any more.
            with contextlib.closing(answer.pieces):
                self._write(first)
                for piece in _until_failure(answer):
                    self._write(piece)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _write(self, piece: bytes) -> None:
        if piece:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _refuse(self, error: RequestError) -> None:
        self._whole(error.status, json.dumps(error.body()).encode(), error.headers)

    def _whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Lambda writes a line for each invocation itself."""


def _until_failure(answer: Answer) -> Iterator[bytes]:
    """The pieces; a failure among them ends the answer with an event that says so, or, where there are no events, cuts it."""
    try:
        yield from answer.pieces
    except RequestError as error:
        if not answer.is_event_stream:
            raise ConnectionAbortedError(error.message) from error
        yield f"data: {json.dumps(error.body())}\n\n".encode()
