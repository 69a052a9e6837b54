"""A target ready to be measured: started if it is to be, asked what it takes, with whoever counts its tokens."""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.probe import NoRoute, probe_now
from benchmarks.client.target import TargetSpec
from benchmarks.commands.common import given_url, is_on_this_machine, target_spec
from benchmarks.commands.served import served
from benchmarks.load.prompts import PromptForm
from benchmarks.load.tokenizers import Tokenizer, find_tokenizer, http_post
from benchmarks.machine import servers
from benchmarks.machine.telemetry import Telemetry
from serving.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Opened:
    """`url`: the server's root, None for SageMaker. `model_root`: where the server says its model is, which may be on another machine."""

    spec: TargetSpec
    capabilities: Capabilities
    tokenizer: Tokenizer
    url: str | None
    model_root: str | None
    max_model_len: int | None

    @property
    def prompt_form(self) -> PromptForm:
        """What the route takes; token ids where it takes them, since their number is exact."""
        if self.spec.chat_bodies:
            return "messages"
        return "token_ids" if self.capabilities.accepts_token_ids and self.tokenizer.is_exact else "text"

    @property
    def is_local(self) -> bool:
        """Whether the server shares this machine."""
        return is_on_this_machine(self.url)

    def watch(self) -> Telemetry:
        """Looks on while load is driven."""
        return Telemetry(self.url, headers=self.spec.headers)

    def ledger(self) -> dict[str, Any] | None:
        """Where the server's memory is, by its own account."""
        return servers.ledger(self.url, self.spec.headers) if self.url else None

    def to_json(self) -> dict[str, Any]:
        """For the document. The key is left out."""
        return {
            "api": self.spec.api,
            "url": self.url,
            "model": self.spec.model,
            "endpoint_name": self.spec.endpoint_name,
            "region": self.spec.region,
            "extra_body": dict(self.spec.extra_body),
            "prompt_form": self.prompt_form,
            "tokenizer": self.tokenizer.name,
            "capabilities": dataclasses.asdict(self.capabilities),
        }


@contextlib.contextmanager
def opened(options: argparse.Namespace, server_words: Sequence[str], environ: Mapping[str, str]) -> Iterator[Opened]:
    """The target that the options name; a server started for it is stopped at the end.

    Raises:
        BenchmarkError: the options are wrong, or the server does not start or answer.
    """
    url = given_url(options)
    if server_words and not options.serve:
        raise BenchmarkError(f"{' '.join(server_words)!r} after -- are arguments of a server that --serve starts")
    with contextlib.ExitStack() as stack:
        if options.serve:
            url = stack.enter_context(served(options.serve, server_words, options.out, environ)).url
        yield _open(options, target_spec(options, url, environ))


def _open(options: argparse.Namespace, spec: TargetSpec) -> Opened:
    spec, found = _probed(spec, may_choose=options.api is None and spec.api == "completions" and not _names_route(options))
    spec = dataclasses.replace(spec, model=found.model)
    root = None if spec.api.startswith("sagemaker") or spec.url is None else spec.url.removesuffix("/v1")
    post = http_post(root, spec.headers) if root and found.has_tokenize else None
    tokenizer = find_tokenizer(Path(options.tokenizer) if options.tokenizer else None, post, spec.model)
    told = _served_model(root, spec)
    return Opened(spec, found, tokenizer, root, told.get("root"), told.get("max_model_len"))


def _probed(spec: TargetSpec, *, may_choose: bool) -> tuple[TargetSpec, Capabilities]:
    """What the target takes; where no route was named, on the first of the usual ones that it has."""
    try:
        return spec, probe_now(spec)
    except NoRoute:
        if not may_choose:
            raise
        for other in (dataclasses.replace(spec, api="chat", chat_bodies=True), dataclasses.replace(spec, api="invocations")):
            with contextlib.suppress(NoRoute):
                return other, probe_now(other)
        raise


def _names_route(options: argparse.Namespace) -> bool:
    return bool((given_url(options) or "").rstrip("/").endswith("/completions"))


def _served_model(root: str | None, spec: TargetSpec) -> Mapping[str, Any]:
    """What `/v1/models` says of it; nothing where it does not say."""
    if root is not None:
        with contextlib.suppress(BenchmarkError):
            return servers.first_model(root, spec.headers)
    return {}
