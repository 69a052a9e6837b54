"""How far start-up is, and what went wrong, told from the engine's processes to the server's by datagrams on a Unix socket.

vLLM starts its processes itself and hands them nothing but its configuration, so the socket's path travels in `additional_config`.
A lost or late report is no fault: sending never blocks and never raises.
"""

import json
import math
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.engine.diagnosis.exception_text import text_of
from serving.engine.interface import Report

CONFIG_KEY = "tokenport_progress_socket"
_MAX_DATAGRAM_BYTES = 8192
_MAX_ERROR_CHARS = 1000
_MAX_ERRORS = 32


class ProgressListener:
    """The receiving end. Use as a context manager around the engine's life; call `drain` whenever `fileno` is readable."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._errors: list[tuple[float, str]] = []

    def __enter__(self) -> "ProgressListener":
        self._folder = tempfile.TemporaryDirectory(prefix="tokenport-")
        self.path = str(Path(self._folder.name) / "progress")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()
        self._socket.close()
        self._folder.cleanup()

    def fileno(self) -> int:
        """For an event loop to watch."""
        return self._socket.fileno()

    def errors(self, within_s: float = math.inf) -> list[str]:
        """What engine processes told of their failures in the last `within_s` seconds, each in one line, in the order they came."""
        self.drain()
        now = time.monotonic()
        return [text for told_at, text in self._errors if now - told_at <= within_s]

    def drain(self) -> None:
        """Pass on every report that has arrived."""
        while True:
            try:
                message = json.loads(self._socket.recv(_MAX_DATAGRAM_BYTES))
            except BlockingIOError:
                return
            if "error" in message:
                # Bounded: an engine may fail at single tasks all day, and go on.
                self._errors = [*self._errors[1 - _MAX_ERRORS :], (time.monotonic(), message["error"])]
            else:
                self._report(message["phase"], message["fraction"])


def lasting(additional_config: Any) -> Any:
    """It without the socket, which every start has anew."""
    if not isinstance(additional_config, Mapping):
        return additional_config  # an object that hashes itself
    return {name: value for name, value in additional_config.items() if name != CONFIG_KEY}


def send_progress(additional_config: Mapping[str, Any], phase: str, fraction: float | None = None) -> None:
    """Report from an engine process."""
    _send(additional_config, {"phase": phase, "fraction": fraction})


def send_error(additional_config: Mapping[str, Any], error: BaseException) -> None:
    """Tell of a failure in this engine process, in one line."""
    _send(additional_config, {"error": text_of(error)[:_MAX_ERROR_CHARS]})


def _send(additional_config: Mapping[str, Any], message: Mapping[str, Any]) -> None:
    path = additional_config.get(CONFIG_KEY)
    if path is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(json.dumps(message).encode(), path)
        except OSError:
            return  # nobody listens any more: the server is gone
