"""`tokenport bench memory`: where the memory of each device goes, measured, and what really fits in it.

The server is started with each combination of the settings in --sweep. Of each: the ledger once it is ready, after warm-up and under load;
the peak while loading; the longest context and the most sequences that ran, found by driving the server there. --largest searches for the
largest value of one setting with which the server starts and answers over its whole context. A server that refuses to start or dies counts
as "does not fit", with its own reason.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from benchmarks.client.target import TargetSpec
from benchmarks.commands import memory_trial
from benchmarks.commands.common import add_result_options, given_url
from benchmarks.commands.finish import finish
from benchmarks.commands.in_process import drive_at
from benchmarks.commands.memory_document import make_document, tables
from benchmarks.commands.memory_trial import Trial
from benchmarks.commands.served import split_words, starting_served
from benchmarks.commands.settings_sweep import Range, Search, Settings, label_of, parse_range, parse_sweep, words_of
from benchmarks.machine.facts import busyness, machine
from benchmarks.machine.memory_watch import MemoryWatch
from benchmarks.machine.nvml import open_gpus
from benchmarks.machine.servers import ServerFailed, first_model, ledger
from serving.errors import BenchmarkError
from serving.planner.commands.one_line_parser import OneLineParser

_CHECK_DEADLINE_S = 120.0
_CHECK = [sys.executable, "-m", "serving", "check"]


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure, keep and print. Returns 0; 3 where nothing that was tried fits."""
    own, server_words = split_words(words)
    options = _parser().parse_args(own)
    url = given_url(options)
    if (url is None) == (options.serve is None):
        raise BenchmarkError("say what to measure: --serve MODEL, or --url http://host:port of a running server")
    if url is not None and (options.sweep or options.largest or server_words):
        raise BenchmarkError("--sweep, --largest and arguments after -- start servers: they go with --serve, not with --url")
    console = Console()
    facts = {**machine(), **busyness()}
    bench = _Bench(options, server_words, environ, console)
    runs: list[dict[str, Any]] = []
    is_interrupted = False
    try:
        for entry in [bench.at(url)] if url is not None else bench.all():
            runs.append({"index": len(runs), **entry})
    except KeyboardInterrupt:
        is_interrupted = True
    if not runs:
        raise BenchmarkError("stopped before anything was measured")
    result = make_document(words, options, server_words, facts, runs, is_interrupted=is_interrupted)
    console.print(*tables(runs), sep="\n")
    console.print(result["verdict"])
    return finish(result, options)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="tokenport bench memory",
        description=__doc__,
        epilog="examples:\n"
        "  tokenport bench memory --serve MODEL --sweep 'quantization=none,int8 max_model_len=1024,2048' --out memory.json\n"
        "  tokenport bench memory --serve MODEL --largest max_model_len=1024..65536 -- --kv-cache-memory-bytes 1G",
    )
    target = parser.add_argument_group("target")
    target.add_argument("positional_url", nargs="?", metavar="URL", help="the same as --url")
    target.add_argument("--url", help="a running Tokenport server: its ledger, and what it runs")
    target.add_argument("--serve", metavar="MODEL", help="start `tokenport serve MODEL`; its arguments after --")
    target.add_argument("--api-key", help="sent as a bearer token (default: TOKENPORT_API_KEY)")
    tried = parser.add_argument_group("what is tried")
    tried.add_argument("--sweep", metavar="SETTINGS", default="", help="settings with their values, NAME=A,B NAME=C,D; none leaves one out")
    tried.add_argument("--largest", metavar="NAME=LOW..HIGH", help="search for the largest value that fits, within 5 %%; a start each")
    tried.add_argument("--max-starts", type=int, default=10, help="starts that the search may take (default: 10)")
    tried.add_argument(
        "--sequence-lens", metavar="N,N", default="128", help="tokens of each of many sequences, prompt and output (default: 128)"
    )
    tried.add_argument("--max-sequences", type=int, default=1024, help="at most so many at once (default: 1024)")
    add_result_options(parser)
    return parser


class _Bench:
    """Goes through the configurations; each becomes an entry of the document's "runs"."""

    def __init__(self, options: argparse.Namespace, server_words: Sequence[str], environ: Mapping[str, str], console: Console) -> None:
        self._options = options
        self._server_words = list(server_words)
        self._environ = environ
        self._console = console
        self._lengths = _lengths(options.sequence_lens)
        if options.max_sequences < 1 or options.max_starts < 1:
            raise BenchmarkError("--max-sequences and --max-starts: give a number above 0")
        key = options.api_key or environ.get("TOKENPORT_API_KEY", "").split(",")[0].strip()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def at(self, url: str) -> dict[str, Any]:
        """A server that runs already: all but its start."""
        if ledger(url, self._headers) is None:
            raise BenchmarkError(f"--url {url}: nothing there tells its memory at GET /memory; give a Tokenport server")
        with _watching(None) as watch:
            metrics = self._carry_out(url, watch, is_short=False)
        return _entry({}, {**metrics, "peaks": watch.peaks}, kind="configuration")

    def all(self) -> Iterator[dict[str, Any]]:
        """Those of the sweep, and for each the search where one is asked for."""
        sweep = parse_sweep(self._options.sweep)
        over = None if self._options.largest is None else parse_range(self._options.largest)
        for settings in sweep:
            if over is not None and over.name in settings:
                raise BenchmarkError(f"--largest {over.name} and --sweep {over.name} both choose it: give one of them")
            self._check({**settings, **({} if over is None else {over.name: str(over.low)})})
        for settings in sweep:
            if over is None:
                yield _entry(settings, self._try(settings, is_short=False), kind="configuration")
            else:
                yield from self._search(settings, over)

    def _search(self, settings: Settings, over: Range) -> Iterator[dict[str, Any]]:
        search = Search(over)
        for _ in range(self._options.max_starts):
            value = search.next_value()
            if value is None:
                return
            tried = {**settings, over.name: str(value)}
            metrics = self._try(tried, is_short=True)
            search.tell(value, fits=metrics["fits"])
            yield _entry(tried, metrics, kind="search")

    def _try(self, settings: Settings, *, is_short: bool) -> dict[str, Any]:
        label = label_of(settings)
        self._console.print(f"{label}: starting", highlight=False)
        words = [*self._server_words, *words_of(settings)]
        peaks: dict[str, dict[str, int]] = {}
        try:
            with starting_served(self._options.serve, words, self._options.out, self._environ) as server, _watching(server) as watch:
                peaks = watch.peaks
                watch.begin("loading")
                server.wait_ready()
                metrics = {**self._carry_out(server.url, watch, is_short=is_short), "start_s": server.start_s}
                if (code := server.child.poll()) is not None:
                    raise ServerFailed(f"the server ended with code {code} under load: {server.last_words()}")
        except ServerFailed as error:
            metrics = {"fits": False, "reason": str(error)}
        if not metrics["fits"]:
            self._console.print(f"{label}: does not fit: {metrics['reason']}", highlight=False)
        return {**metrics, "peaks": peaks}

    def _carry_out(self, url: str, watch: MemoryWatch, *, is_short: bool) -> dict[str, Any]:
        model = first_model(url, self._headers)
        spec = TargetSpec("completions", url, model=model["id"], headers=self._headers, extra_body={"temperature": 0})
        lengths = [min(length, model["max_model_len"]) for length in self._lengths]
        trial = Trial(url, model["max_model_len"], self._headers, lengths, self._options.max_sequences, is_short)
        return memory_trial.carry_out(trial, drive_at(spec), watch.begin, lambda text: self._console.print(text, highlight=False))

    def _check(self, settings: Settings) -> None:
        """A setting that does not exist is the user's mistake, not one that does not fit."""
        command = [*_CHECK, self._options.serve, *self._server_words, *words_of(settings)]
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, timeout=_CHECK_DEADLINE_S, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("tokenport: ")
            raise BenchmarkError(f"{label_of(settings)}: {told}")


@contextlib.contextmanager
def _watching(server: Any) -> Iterator[MemoryWatch]:
    gpus, _ = open_gpus()
    with contextlib.ExitStack() as stack:
        if gpus is not None:
            stack.enter_context(gpus)
        yield stack.enter_context(MemoryWatch(server, gpus))


def _lengths(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) > 1 for word in words):
        raise BenchmarkError(f"--sequence-lens {text!r}: write numbers of tokens above 1, like 128,2048")
    return sorted({int(word) for word in words})


def _entry(settings: Settings, metrics: dict[str, Any], *, kind: str) -> dict[str, Any]:
    return {
        "label": label_of(settings),
        "load": {"kind": kind, "settings": dict(settings)},
        "repeat": 0,
        "valid": True,
        "invalid_reasons": [],
        "metrics": metrics,
    }
