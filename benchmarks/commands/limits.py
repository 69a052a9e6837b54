"""`tokenport bench limits`: what this machine's memory and arithmetic can do, measured now."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import limits
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Measure and print. Returns 0."""
    parser = OneLineParser(prog="tokenport bench limits", description=__doc__.split(": ", 1)[1] if __doc__ else None)
    parser.epilog = "Stop what else runs on the machine first: a ceiling measured beside it is too low."
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep all tries as JSON")
    options = parser.parse_args(words)
    found = limits.measure("by itself", environ)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table("device", "of what", "at most", title="Limits of this machine, measured now")
    for row in limits.rows(found):
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in found["notes"]:
        console.print(f"Note: {note}.")
    return 0
