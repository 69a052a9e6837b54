"""`tokenport memory [URL] [--json]`: asks a running server's `GET /memory` and prints it as a table."""

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from serving.errors import NoAnswer

_DEFAULT_URL = "http://127.0.0.1:8080"
_DEADLINE_S = 10.0
_OK, _UNAUTHORIZED, _UNAVAILABLE = 200, 401, 503
_ROWS = ("weights", "kv_cache", "activation_peak", "cuda_graph", "non_torch", "other", "free", "total")
_GIB = 2**30


def memory_command(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """What to print. The key that the server asks for is the first in TOKENPORT_API_KEY.

    Raises:
        NoAnswer: the words are wrong, nothing answers there, or something else than the memory.
    """
    options = {word for word in words if word.startswith("-")}
    urls = [word for word in words if not word.startswith("-")]
    if options - {"--json"} or len(urls) > 1:
        raise NoAnswer("usage: tokenport memory [URL] [--json]")
    body = _ask(urls[0] if urls else _DEFAULT_URL, environ.get("TOKENPORT_API_KEY", "").split(",")[0].strip())
    return json.dumps(body, indent=2) if options else table(body)


def table(body: Mapping[str, Any]) -> str:
    """`GET /memory` for people: a column a rank, a row a kind, in GiB; then the phases of the start."""
    devices = body["devices"]
    rows = [["GiB", *(f"rank {device['rank']} ({device['device']})" for device in devices)]]
    for kind in _ROWS:
        rows.append([kind.replace("_", " "), *(f"{device[f'{kind}_bytes'] / _GIB:.2f}" for device in devices)])
    types = sorted({dtype for device in devices for dtype in device["weights_by_dtype"]})
    rows[2:2] = [[f"  {name}", *(f"{device['weights_by_dtype'].get(name, 0) / _GIB:.2f}" for device in devices)] for name in types]
    for name, form in (("kv_cache_blocks", "{:d}"), ("kv_cache_tokens", "{:d}"), ("kv_cache_sequences", "{:.2f}")):
        rows.append([name.replace("_", " "), *(form.format(device[name]) for device in devices)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_padded(row, widths)) for row in rows]
    phases = body["start_up_s"]
    width = max([len(phase) for phase in phases] + [len("start-up")])
    lines += ["", f"{'start-up'.ljust(width)}  {sum(phases.values()):6.1f} s"]
    lines += [f"{phase.ljust(width)}  {seconds:6.1f}" for phase, seconds in phases.items()]
    return "\n".join(lines)


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _ask(url: str, api_key: str) -> dict[str, Any]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http URL")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname, parts.port, timeout=_DEADLINE_S)
    except ValueError as error:
        raise NoAnswer(f"{url!r} is no address of a server: write it like {_DEFAULT_URL}") from error
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/memory", headers=headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"no server answers at {url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    return _body(url, status, text)


def _body(url: str, status: int, text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if status == _OK and isinstance(body, dict) and "devices" in body:
        return body
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message", "") if isinstance(error, dict) else ""
    if status == _UNAUTHORIZED:
        raise NoAnswer(f"{url} asks for an API key: set TOKENPORT_API_KEY to one of the server's")
    if status == _UNAVAILABLE and message:
        raise NoAnswer(f"{url} cannot say yet: {message}")
    told = f"{status} ({message})" if message else str(status)
    raise NoAnswer(f"{url} is no Tokenport server, or not one with GET /memory: it answered {told}")
