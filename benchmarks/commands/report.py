"""`tokenport bench report`: a result file on the terminal, or as a page that needs nothing but a browser."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report import document, terminal
from serving.planner.commands.one_line_parser import OneLineParser


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Show one result."""
    parser = OneLineParser(prog="tokenport bench report", description=__doc__)
    parser.add_argument("result", type=Path, metavar="FILE.json", help="what --out of a command wrote")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="write the page rather than print the table")
    options = parser.parse_args(words)
    result = document.load(options.result)
    if options.html is None:
        terminal.show(result)
        return 0
    # Plotly takes a second to import.
    from benchmarks.report.page import report_page

    options.html.parent.mkdir(parents=True, exist_ok=True)
    options.html.write_text(report_page(result), encoding="utf-8")
    return 0
