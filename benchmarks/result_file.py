"""The file of one benchmark: what was run, on what, every row, and what they come to."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine.facts import machine

Rows = list[dict[str, Any]]


def keep(out: Path, head: Mapping[str, Any], rows: Iterable[dict[str, Any]], summarise: Callable[[Rows], Any]) -> None:
    """Write `out` after every row, so that stopping early loses nothing; print the summary at the end."""
    result: dict[str, Any] = {**head, "machine": machine(), "rows": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        result["rows"].append(row)
        result["summary"] = summarise(result["rows"])
        result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result.get("summary"), indent=1))
