"""`tokenport bench`, or `python -m benchmarks`: the list of commands, and the one place of this package that reads the environment."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from serving.errors import TokenportError

_COMMANDS: Mapping[str, str] = {
    "throughput": "tokens a second and latencies of a server under load: throughput URL | --serve MODEL",
    "latency": "one stream at a time, over lengths of the prompt",
    "startup": "from the start of the process to the first token, by phases",
    "memory": "where the memory of each device goes, and what really fits",
    "quality": "perplexity and KL divergence of a quantised model against its source",
    "cascade": "quality, cost and delay of a server's cascade, beside each of its tiers alone",
    "compare": "results against each other: differences, intervals, and what is noise",
    "limits": "what this machine's memory and arithmetic can do",
    "report": "a result file as an HTML page, or on the terminal",
    "schema": "the JSON Schema of result files",
}


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command. Returns its exit code: 0, 1 if a `--fail-if` holds, 2 where nothing could be done (told in one line), 3 for a run
    that may not be believed."""
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("help", "-h", "--help"):
        print(_usage())
        return 0
    if command not in _COMMANDS:
        print(f"tokenport bench: unknown command {command!r}; expected {', '.join(_COMMANDS)}", file=sys.stderr)
        return 2
    try:
        # Only what is run is imported: a comparison needs no HTTP client.
        code: int = importlib.import_module(f"benchmarks.commands.{command}").run(rest, environ)
    except TokenportError as error:
        print(f"tokenport bench {command}: {error}", file=sys.stderr)
        return 2
    return code


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    lines = (f"  {name.ljust(width)}  {told}" for name, told in _COMMANDS.items())
    return "\n".join(("usage: tokenport bench COMMAND ...        (COMMAND --help: all it takes)", "", *lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
