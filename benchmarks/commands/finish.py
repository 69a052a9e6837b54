"""The end of every command that measures: the file, the page, the exit code."""

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks.commands.common import INVALID_EXIT_CODE
from benchmarks.report import document


def finish(result: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Write what `--out` and `--html` ask for. Returns 3 for an invalid run, else 0."""
    if options.out is not None:
        document.keep(result, options.out)
    if options.html is not None:
        # Plotly takes a second to import.
        from benchmarks.report.page import report_page

        options.html.parent.mkdir(parents=True, exist_ok=True)
        options.html.write_text(report_page(result), encoding="utf-8")
    return 0 if result["valid"] else INVALID_EXIT_CODE
