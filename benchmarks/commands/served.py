"""Servers that a command starts for itself: their arguments come after `--`, their log is kept when something goes wrong."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.machine.servers import BARE, SERVE, VLLM_SERVE, Contestant, Running, ServerFailed, starting

NAMES = ("tokenport", "vllm")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and what stands after `--` for `tokenport serve`."""
    own = list(words)
    if "--" not in own:
        return own, []
    place = own.index("--")
    return own[:place], own[place + 1 :]


def contestant(name: str, server_words: Sequence[str]) -> Contestant:
    """`tokenport`: `tokenport serve`; `vllm`: vLLM's own server with nothing of Tokenport in it. Both are given the same arguments."""
    if name == "vllm":
        return Contestant(name, [*VLLM_SERVE, *server_words], BARE)
    return Contestant(name, [*SERVE, *server_words])


@contextlib.contextmanager
def starting_served(
    model: str, server_words: Sequence[str], out: Path | None, environ: Mapping[str, str], *, name: str = "tokenport"
) -> Iterator[Running]:
    """Start it on a free port of this machine, yield it at once, and end it. The log goes when the block ends well; otherwise it stays,
    beside `out` or among the temporary files.

    Raises:
        ServerFailed: what the block raised of the kind, with where the log is.
    """
    log = _log_file(out)
    try:
        with starting(contestant(name, server_words), model, log, environ) as server:
            yield server
    except ServerFailed as error:
        raise ServerFailed(f"{error} (its log: {log})") from error
    log.unlink(missing_ok=True)


@contextlib.contextmanager
def served(
    model: str, server_words: Sequence[str], out: Path | None, environ: Mapping[str, str], *, name: str = "tokenport"
) -> Iterator[Running]:
    """As `starting_served`, yielded when it answers."""
    with starting_served(model, server_words, out, environ, name=name) as server:
        server.wait_ready()
        yield server


def _log_file(out: Path | None) -> Path:
    if out is None:
        handle = tempfile.NamedTemporaryFile(prefix="tokenport-bench-", suffix=".server.log", delete=False)  # noqa: SIM115 - kept on failure
        handle.close()
        return Path(handle.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_suffix(".server.log")
