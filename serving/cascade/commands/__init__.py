"""`tokenport cascade`: the words after it choose what is done. One file a command, each `run(words, environ) -> exit code`."""

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence

_FILES = {"collect": "collect", "fit": "fit", "eval": "evaluate"}
_USAGE = """\
usage: tokenport cascade COMMAND ...        (COMMAND --help: all it takes)

  collect QUESTIONS --url URL --tiers SMALL,LARGE    ask each tier of a server, grade the answers, write an outcome file
  fit FILE --quality Q --confidence C --out POLICY   fit the policy by which a small model hands over to a larger one
  eval FILE --policy POLICY [--json]                 what it comes to on other outcomes, beside always-small, always-large and others

FILE has the outcomes of each tier on your own requests: JSON lines
  {"id", "messages", "outcomes": {TIER: {"quality": 0..1, "cost": number, "signals": {name: number}}}}"""


def run_cascade(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """`cascade collect`, `fit` or `eval`. Returns the exit code: 2 for a wrong command line, told in one line.

    Raises:
        CascadeError: in one line.
    """
    command, rest = (words[0], words[1:]) if words else ("--help", ())
    if command in ("help", "-h", "--help"):
        print(_USAGE)
        return 0
    if command not in _FILES:
        near = difflib.get_close_matches(command, _FILES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(_FILES)}"
        print(f"tokenport cascade: unknown command {command!r}; {hint}", file=sys.stderr)
        return 2
    # Only what is run is imported: --help needs no numpy.
    chosen = importlib.import_module(f"serving.cascade.commands.{_FILES[command]}")
    try:
        code: int = chosen.run(rest, environ)
    except SystemExit as stop:  # argparse: the help, or a wrong command line
        return int(stop.code or 0)
    return code
