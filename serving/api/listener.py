"""The listening socket. Imports next to nothing, so that it is open within the first moments of the process."""

import socket

from serving.errors import StartError
from serving.settings import Settings

_BACKLOG = 2048  # uvicorn's


def bind(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        StartError: the address is taken, not this machine's, or not ours to take.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        # asyncio switches Nagle's delay off only where the protocol is named; with it small chunks wait for the client's acknowledgment.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; set TOKENPORT_PORT or TOKENPORT_HOST"
        ) from error
    return listener
