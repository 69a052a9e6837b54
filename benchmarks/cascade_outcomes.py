"""`tokenport cascade fit` and `eval` on outcomes of two public models, over many divisions into fitted and held-out questions.

    python -m benchmarks.cascade_outcomes ROUTELLM_CLONE --splits 20 --out benchmarks/results/FILE.json

A row is one division: fitted on so many questions drawn by lot, evaluated on all others. The rule sees the question alone, so the price
ratio does not change what it does, only what that saves: (1 - share to the large model) (1 - ratio).
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_file import Rows, keep
from benchmarks.routellm import outcomes, write

_QUALITY, _CONFIDENCE = 0.95, 0.9
_PRICE_RATIOS = (0.05, 0.1, 0.2)
_NUM_FITTED = {"gsm8k": (880,), "mmlu": (500, 2000, 9000)}
_PRICE_RATIO_IN_FILES = 0.1
_DEADLINE_S = 300.0
_LINES = ("quality", "quality_ratio", "share_large", "target_met")
_BASELINES = ("small", "large", "random", "prompt_length", "oracle")


def rows(repository: Path, num_splits: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a data set, number of fitted questions and division."""
    for dataset, sizes in _NUM_FITTED.items():
        lines = outcomes(repository, dataset, _PRICE_RATIO_IN_FILES)
        for num_fitted in sizes:
            for seed in range(num_splits):
                shuffled = random.Random(seed).sample(lines, len(lines))  # noqa: S311 - a division, not a secret
                write(folder / "fit.jsonl", shuffled[:num_fitted])
                write(folder / "held-out.jsonl", shuffled[num_fitted:])
                yield {"dataset": dataset, "num_fitted": num_fitted, "seed": seed, **_row(folder)}


def _row(folder: Path) -> dict[str, Any]:
    wish = ["--quality", str(_QUALITY), "--confidence", str(_CONFIDENCE)]
    _cascade("fit", folder / "fit.jsonl", *wish, "--out", folder / "policy.json")
    found = json.loads(_cascade("eval", folder / "held-out.jsonl", "--policy", folder / "policy.json", "--json"))
    lines = {"bounded": found, "naive": found["naive"], **found["baselines"]}
    return {
        "num_held_out": found["num_requests"],
        "share_needed": found["share_needed"],
        "lines": {name: {key: line[key] for key in _LINES} for name, line in lines.items()},
    }


def _cascade(*words: str | Path) -> str:
    command = [sys.executable, "-m", "serving", "cascade", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_DEADLINE_S).stdout


def summary(found: Rows) -> list[dict[str, Any]]:
    """Over the divisions of each data set and number of fitted questions: means, and how often the target was met on what was held out."""
    kinds = dict.fromkeys((row["dataset"], row["num_fitted"]) for row in found)
    return [_summary([row for row in found if (row["dataset"], row["num_fitted"]) == kind]) for kind in kinds]


def _summary(of: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(line: str, key: str) -> float:
        return round(statistics.fmean(row["lines"][line][key] for row in of), 4)

    def told(line: str) -> dict[str, Any]:
        share = mean(line, "share_large")
        savings = {str(ratio): round((1 - share) * (1 - ratio), 4) for ratio in _PRICE_RATIOS}
        return {**{key: mean(line, key) for key in _LINES}, "saving_at_price_ratio": savings}

    needed = {name: round(statistics.fmean(row["share_needed"][name] for row in of), 4) for name in of[0]["share_needed"]}
    head = {key: of[0][key] for key in ("dataset", "num_fitted", "num_held_out")}
    return {**head, "num_splits": len(of), **{line: told(line) for line in ("bounded", "naive", *_BASELINES)}, "share_needed": needed}


def main() -> None:
    """Run all, keep the file after every row, print the summary."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.cascade_outcomes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="a clone of https://github.com/lm-sys/RouteLLM")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    head = {
        "schema_version": 1,
        "command": f"python -m benchmarks.cascade_outcomes ROUTELLM_CLONE --splits {options.splits}",
        "data": "https://github.com/lm-sys/RouteLLM, commit 0b64fda (2024-08-10), Apache-2.0: mixtral-8x7b and gpt-4-1106, right or wrong",
        "quality": _QUALITY,
        "confidence": _CONFIDENCE,
    }
    with tempfile.TemporaryDirectory() as folder:
        keep(options.out, head, rows(options.repository, options.splits, Path(folder)), summary)


if __name__ == "__main__":
    main()
