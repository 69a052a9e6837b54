"""The command line of the local SageMaker runtime: `python -m container.conformance runtime --target URL --port N`."""

import argparse
import contextlib
import logging
import re
import signal
import socket
import sys
from urllib.parse import urlsplit

import uvicorn

from container.conformance.runtime.app import create_app
from container.conformance.runtime.options import Options

_DEFAULTS = Options(target="")
_BACKLOG = 2048  # uvicorn's


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; gives the exit status."""
    arguments = _parser().parse_args(argv)
    given = vars(arguments)
    port: int = given.pop("port")
    if given["split_seed"] is None:
        del given["split_seed"]
    options = Options(**given)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its line for each ping
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(
        f"SageMaker runtime on {url}: endpoint {options.endpoint_name!r} is {options.target}, --split-seed {options.split_seed}", flush=True
    )
    config = uvicorn.Config(create_app(options), log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # uvicorn ends with the signal raised again; being told to stop is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m container.conformance runtime",
        description="A local SageMaker runtime in front of a container, for boto3 and the aws command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--target", type=_url, required=True, help="the container's address, as http://host:port")
    add("--port", type=_port, required=True, help="port on 127.0.0.1; 0 takes a free one")
    add("--endpoint-name", type=_name, default=_DEFAULTS.endpoint_name, help="the only EndpointName that is known")
    add("--variant-name", type=_name, default=_DEFAULTS.variant_name, help="the endpoint's production variant")
    add("--split-seed", type=int, default=None, help="seeds the cutting of streams into parts; without it another one each time")
    add("--max-body-bytes", type=_count, default=_DEFAULTS.max_body_bytes, help="larger requests are a 413")
    add("--invoke-timeout-s", type=_positive, default=_DEFAULTS.invoke_timeout_s, help="seconds for InvokeEndpoint")
    add("--stream-timeout-s", type=_positive, default=_DEFAULTS.stream_timeout_s, help="seconds for a whole stream")
    add("--ping-interval-s", type=_positive, default=_DEFAULTS.ping_interval_s, help="seconds between two pings")
    add("--ping-timeout-s", type=_positive, default=_DEFAULTS.ping_timeout_s, help="seconds a ping may take")
    add("--throttle-rps", type=_positive, default=None, help="calls a second before ThrottlingException")
    add("--max-concurrency", type=_count, default=None, help="calls at a time before ThrottlingException")
    return parser


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise argparse.ArgumentTypeError(f"{text!r} is not http://host:port")
    return text.rstrip("/")


def _name(text: str) -> str:
    if len(text) > 63 or re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not letters, digits and hyphens, at most 63")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return number


if __name__ == "__main__":
    sys.exit(main())
