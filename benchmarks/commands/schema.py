"""`tokenport bench schema`: the JSON Schema that every result file fits."""

from collections.abc import Mapping, Sequence

from benchmarks.report.schema import schema_text
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print it."""
    OneLineParser(prog="tokenport bench schema", description=__doc__).parse_args(words)
    print(schema_text(), end="")
    return 0
