"""Limits: bodies that are too large, and more requests than can be taken."""

import collections
import select
import socket
import time
from collections.abc import Iterable, Iterator

from container.conformance.check import INF, OWN, Check, Failed, expect
from container.conformance.client import JSON, MAX_BODY_BYTES, Client, to_bytes
from container.conformance.load import Load
from container.conformance.requests import completion, long
from container.conformance.server import Server

_BLOCK_BYTES = 256 * 1024
_ANSWER_LIMIT_S = 20.0
_LOADS = ((600, 8), (2400, 8))
"""Requests at once, and the tokens of each answer. The second only where the first were all taken, as a large engine's may be."""


def _too_large(server: Server) -> str:
    told = []
    for is_chunked in (False, True):
        started = time.monotonic()
        status = _send_padded(server.client, MAX_BODY_BYTES + _BLOCK_BYTES, is_chunked=is_chunked)
        how = "chunked" if is_chunked else "with Content-Length"
        expect(status == 413, f"{how}: {status} instead of 413")
        told.append(f"{how} after {time.monotonic() - started:.2f} s")
    after = server.client.invoke(completion(1))
    expect(after.status_code == 200, f"after it a good request got {after.status_code}")
    return f"413 {', '.join(told)}"


def _large_enough(server: Server) -> str:
    status = _send_padded(server.client, MAX_BODY_BYTES - _BLOCK_BYTES, is_chunked=False)
    expect(status == 200, f"{status} for a body of {MAX_BODY_BYTES - _BLOCK_BYTES} bytes")
    return f"{(MAX_BODY_BYTES - _BLOCK_BYTES) / 2**20:.1f} MiB are read"


def _send_padded(client: Client, size: int, *, is_chunked: bool) -> int:
    """A good request behind spaces, `size` bytes in all. Stops sending as soon as an answer comes, as a server may give it early."""
    request = to_bytes(completion(1))
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    host, port = client.address
    head = f"POST /invocations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {JSON}\r\n{length}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=_ANSWER_LIMIT_S) as connection:
        try:
            for block in _blocks(head.encode(), _padding(request, size), is_chunked=is_chunked):
                if select.select([connection], [], [], 0)[0]:
                    break
                connection.sendall(block)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered and closed; what it said is still to be read
        connection.settimeout(_ANSWER_LIMIT_S)
        try:
            answer = connection.recv(4096)
        except TimeoutError:
            raise Failed(f"no answer {_ANSWER_LIMIT_S:.0f} s after a body of {size} bytes") from None
    if not answer.startswith(b"HTTP/1.1 "):
        raise Failed(f"{answer[:60]!r} instead of an answer")
    return int(answer.split()[1])


def _padding(request: bytes, size: int) -> Iterator[bytes]:
    left = size - len(request)
    while left > 0:
        block = b" " * min(_BLOCK_BYTES, left)
        left -= len(block)
        yield block
    yield request


def _blocks(head: bytes, body: Iterable[bytes], *, is_chunked: bool) -> Iterator[bytes]:
    yield head
    for block in body:
        yield b"%x\r\n%s\r\n" % (len(block), block) if is_chunked else block
    if is_chunked:
        yield b"0\r\n\r\n"


def _overload(server: Server) -> str:
    for num_requests, num_tokens in _LOADS:
        load = Load(server.client, num_requests, long(num_tokens))
        load.join()
        lost = [end for end in load.ends if not end.is_whole and end.status not in (429, 503)]
        expect(not lost, f"{len(lost)} of {num_requests} were lost, one with {lost[:1]}")
        if refused := [end for end in load.ends if end.status in (429, 503)]:
            break
    expect(bool(refused), f"all {num_requests} at once were taken: nothing bounds the queue")
    silent = [end for end in refused if not (end.retry_after or "").isdigit()]
    expect(not silent, f"{len(silent)} of {len(refused)} refusals have no Retry-After in seconds")
    after = server.client.invoke(completion(1))
    expect(after.status_code == 200, f"afterwards a request got {after.status_code}")
    waits = sorted({int(end.retry_after or 0) for end in refused})
    whole, statuses = num_requests - len(refused), dict(collections.Counter(end.status for end in refused))
    return f"of {num_requests} at once {whole} answered, refused {statuses}, Retry-After {waits[0]} to {waits[-1]} s, none lost"


CHECKS = (
    Check("body-too-large", "A body over 25 MiB is a 413 at once, however it is sent", INF, _too_large),
    Check("body-large", "A body just under 25 MiB is read", INF, _large_enough),
)
LOAD_CHECKS = (Check("overload", "More requests than can be taken: some refused with Retry-After, none lost", OWN, _overload),)
