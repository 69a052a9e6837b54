"""The words of `tokenport invoke`: where it goes, what is asked, how. What does not go together is one line and exit code 2."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO
from urllib.parse import urlsplit

from serving.planner.commands.one_line_parser import OneLineParser

Service = Literal["http", "sagemaker", "bedrock"]
_DESCRIPTION = """\
Ask a model anywhere. The answer is written as it comes; times and usage go to standard error.

TARGET is one of
  http://HOST:PORT or https://...   a server that speaks OpenAI's protocol, with the path before /chat/completions if it is not /v1
  sagemaker:ENDPOINT[/COMPONENT]    a SageMaker endpoint, or an inference component of it
  bedrock:MODEL                     a Bedrock model: its id, or the ARN of an inference profile or of provisioned throughput
Credentials for AWS are those of boto3's own chain. Without PROMPT it is read from standard input."""
_ONLY: Mapping[str, tuple[Service, ...]] = {
    "api_key_env": ("http",),
    "route": ("http",),
    "model": ("http", "sagemaker"),
    "region": ("sagemaker", "bedrock"),
}
"""Options that only some targets have a use for."""


@dataclass(frozen=True)
class Target:
    """`name` is a URL without the slash at its end, an endpoint, or what Bedrock takes for a model."""

    service: Service
    name: str
    component: str | None = None


@dataclass(frozen=True)
class Options:
    """`timeout_s` is for the whole answer. `model`, `max_tokens`, `temperature`: None leaves it to the other side."""

    target: Target
    body: Mapping[str, Any]
    model: str | None
    region: str | None
    api_key: str | None
    route: Literal["chat", "invocations"]
    timeout_s: float
    shows_json: bool
    is_quiet: bool


def read_options(words: Sequence[str], environ: Mapping[str, str], stdin: TextIO) -> Options:
    """What the words say; ends the process, with one line, where they are wrong."""
    parser = _parser()
    # Options may stand between the words of the prompt.
    given, extra = parser.parse_known_intermixed_args(list(words))
    if extra:
        parser.parse([given.target, *extra])
    target = _target(parser, given.target)
    for name, services in _ONLY.items():
        if getattr(given, name) is not None and target.service not in services:
            parser.error(f"--{name.replace('_', '-')} has no meaning for {given.target}; it is for {' and '.join(services)} targets")
    return Options(
        target=target,
        body=_body(given, _prompt(parser, given.prompt, stdin)),
        model=given.model,
        region=given.region or environ.get("AWS_REGION"),
        api_key=_api_key(parser, given.api_key_env, environ),
        route=given.route or "chat",
        timeout_s=given.timeout,
        shows_json=given.json,
        is_quiet=given.quiet,
    )


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="tokenport invoke", description=_DESCRIPTION)
    add = parser.add_argument
    add("target", metavar="TARGET")
    add("prompt", metavar="PROMPT", nargs="*")
    add("--system", metavar="TEXT", help="a system message before the prompt")
    add("--max-tokens", type=_count, metavar="N", help="tokens of the answer at most (default: the other side's)")
    add("--temperature", type=_temperature, metavar="T", help="0 for the likeliest tokens (default: the other side's)")
    add("--model", metavar="NAME", help="the model's name at the target (default: a server's first, an endpoint's only one)")
    add("--region", help="AWS region (default: AWS_REGION, AWS_DEFAULT_REGION or the profile's)")
    add("--api-key-env", metavar="NAME", help="environment variable with the server's API key; of several keys, the first")
    add("--route", choices=("chat", "invocations"), help="of a server: /v1/chat/completions, or /invocations (default: chat)")
    add("--timeout", type=_seconds, default=300.0, metavar="S", help="seconds for the whole answer (default: 300)")
    add("--no-stream", action="store_true", help="ask for the answer in one piece")
    add("--json", action="store_true", help="write what came as JSON, a chunk a line, instead of its text")
    add("--quiet", action="store_true", help="nothing about times and usage")
    return parser


def _target(parser: OneLineParser, word: str) -> Target:
    scheme, colon, name = word.partition(":")
    if scheme in ("http", "https") and _is_server(word):
        return Target("http", word.rstrip("/"))
    if scheme == "bedrock" and name:
        return Target("bedrock", name)
    endpoint, slash, component = name.partition("/")
    if scheme == "sagemaker" and endpoint and bool(slash) == bool(component):
        return Target("sagemaker", endpoint, component or None)
    near = difflib.get_close_matches(scheme, ("http", "https", "sagemaker", "bedrock"), n=1) if colon else []
    hint = f"; did you mean {near[0]}:?" if near and near[0] != scheme else ""
    parser.error(f"TARGET {word!r} is none of http://HOST:PORT, sagemaker:ENDPOINT[/COMPONENT] and bedrock:MODEL{hint}")


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        return False


def _prompt(parser: OneLineParser, words: Sequence[str], stdin: TextIO) -> str:
    if not words and stdin.isatty():
        parser.error("no PROMPT: write it behind TARGET, or into standard input")
    try:
        prompt = " ".join(words) if words else stdin.read()
    except UnicodeDecodeError as error:
        parser.error(f"standard input is no text: {error}")
    if not prompt.strip():
        parser.error("the prompt is empty")
    return prompt


def _body(given: argparse.Namespace, prompt: str) -> dict[str, Any]:
    system = [] if given.system is None else [{"role": "system", "content": given.system}]
    body: dict[str, Any] = {"messages": [*system, {"role": "user", "content": prompt}]}
    for name in ("max_tokens", "temperature"):
        if getattr(given, name) is not None:
            body[name] = getattr(given, name)
    return body if given.no_stream else body | {"stream": True, "stream_options": {"include_usage": True}}


def _api_key(parser: OneLineParser, variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    key = environ.get(variable, "").split(",")[0].strip()
    if not key:
        parser.error(f"--api-key-env {variable}: there is no such variable, or it is empty")
    return key


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number, 1 or more")
    return int(word)


def _temperature(word: str) -> float:
    value = _number(word)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{word!r} is below 0")
    return value


def _seconds(word: str) -> float:
    value = _number(word)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds above 0")
    return value


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("inf")
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is no number")
    return value
