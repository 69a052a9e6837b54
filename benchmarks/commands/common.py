"""Options that several commands share: where the server is, and where the result goes."""

import argparse
import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, get_args
from urllib.parse import urlsplit

from benchmarks.client.target import Api, TargetSpec
from serving.errors import BenchmarkError

INVALID_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 130
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KEY_VARIABLES = ("TOKENPORT_API_KEY", "OPENAI_API_KEY")
_PATHS: Mapping[str, Api] = {"/chat/completions": "chat", "/completions": "completions", "/invocations": "invocations"}


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Where the load goes."""
    group = parser.add_argument_group("target")
    group.add_argument("positional_url", nargs="?", metavar="URL", help="the same as --url")
    group.add_argument("--url", help="a server: http://host:port, with the route if it is another than --api says")
    group.add_argument(
        "--serve", metavar="MODEL", help="start `tokenport serve MODEL` on a free port and stop it at the end; its arguments after --"
    )
    group.add_argument(
        "--api",
        choices=get_args(Api),
        help="completions, chat: an OpenAI-compatible server's routes; invocations: the same bodies to /invocations; sagemaker, "
        "sagemaker-stream: InvokeEndpoint and InvokeEndpointWithResponseStream through boto3, --url then is its endpoint_url "
        "(default: what the URL's path says, else completions, or the first of chat and invocations where the server has no completions)",
    )
    group.add_argument("--chat", action="store_true", help="send messages instead of a prompt to /invocations or SageMaker")
    group.add_argument("--model", help="the model's name in requests (default: the first that /v1/models lists)")
    add_key_option(group)
    group.add_argument("--endpoint", metavar="NAME", help="SageMaker's endpoint name")
    group.add_argument("--region", help="SageMaker's region (default: boto3's own chain)")
    group.add_argument("--extra-body", metavar="JSON", help='fields for every request, such as {"temperature": 0.7}')


def add_key_option(parser: argparse._ActionsContainer) -> None:
    """The server's key."""
    parser.add_argument("--api-key", help=f"sent as a bearer token (default: {' or '.join(_KEY_VARIABLES)})")


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Where the result goes."""
    group = parser.add_argument_group("result")
    group.add_argument("--out", type=Path, metavar="FILE.json", help="keep the whole result, raw times included, as JSON")
    group.add_argument("--html", type=Path, metavar="FILE.html", help="write a report that needs nothing but a browser")


def target_spec(options: argparse.Namespace, url: str | None, environ: Mapping[str, str]) -> TargetSpec:
    """The target that the options name; `url` is that of a server that was started, or what `given_url` says.

    Raises:
        BenchmarkError: no target, or options that do not go together.
    """
    api, base = _api_of(options.api, url)
    is_sagemaker = api.startswith("sagemaker")
    if is_sagemaker != bool(options.endpoint):
        raise BenchmarkError("--endpoint NAME and --api sagemaker or sagemaker-stream go together")
    if url is None and not is_sagemaker:
        raise BenchmarkError("say where the load goes: --url http://host:port, or --serve MODEL")
    if options.chat and api in ("completions", "chat"):
        raise BenchmarkError("--chat is for --api invocations and SageMaker; for an OpenAI server write --api chat")
    return TargetSpec(
        api=api,
        url=base,
        model=options.model,
        endpoint_name=options.endpoint,
        region=options.region,
        extra_body=_json_object("--extra-body", options.extra_body),
        headers={} if is_sagemaker else api_headers(options.api_key, environ),
        chat_bodies=options.chat or api == "chat",
    )


def api_headers(key: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What a request carries for the server's key: the one given, else that of the environment."""
    key = key or next((environ[name].split(",")[0].strip() for name in _KEY_VARIABLES if environ.get(name)), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


def given_url(options: argparse.Namespace) -> str | None:
    """The address in the options, None where a server is to be started or boto3 knows it.

    Raises:
        BenchmarkError: two are given, or it is none.
    """
    if options.url and options.positional_url and options.url != options.positional_url:
        raise BenchmarkError(f"two targets: {options.positional_url} and --url {options.url}")
    url: str | None = options.url or options.positional_url
    if url and options.serve:
        raise BenchmarkError(f"two targets: --url {url} and --serve {options.serve}")
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BenchmarkError(f"--url {url!r} is no address of a server: write it like http://127.0.0.1:8080")
    return url


def is_on_this_machine(url: str | None) -> bool:
    """Whether the server shares this machine, so that what is measured here is true of it."""
    return url is not None and urlsplit(url).hostname in LOOPBACK


def _api_of(given: Api | None, url: str | None) -> tuple[Api, str | None]:
    """What the URL's path says where the option does not, and the URL without that route."""
    if url is None:
        return given or "completions", None
    url = url.rstrip("/")
    for path, api in _PATHS.items():
        if url.endswith(path):
            if given not in (None, api):
                raise BenchmarkError(f"--api {given} contradicts --url {url}")
            return api, url.removesuffix(path)
    return given or "completions", url


def _json_object(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BenchmarkError(f"{option} {text!r} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BenchmarkError(f'{option} {text!r}: write an object, like {{"temperature": 0.7}}')
    return value


class Stop:
    """Entered, SIGINT and SIGTERM no longer end this process but ask for the end of the run: what was measured is kept. A second one ends
    it."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.event.set()
        signal.signal(number, self._before[number])
