"""Outcomes of two public models as an outcome file: what the RouteLLM repository (Apache-2.0) has of Mixtral-8x7B and GPT-4.

    git clone https://github.com/lm-sys/RouteLLM
    python -m benchmarks.routellm RouteLLM gsm8k --out gsm8k.jsonl

Quality is 1 where the model's answer was right, else 0. The repository has no costs: GPT-4's answers cost 1, Mixtral's `--price-ratio`.
"""

import argparse
import csv
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.errors import BenchmarkError

DATASETS = ("gsm8k", "mmlu")
_FILES = {"gsm8k": "routellm/evals/gsm8k/gsm8k_responses.csv", "mmlu": "routellm/evals/mmlu/responses/*.csv"}
_COLUMNS = {"mixtral-8x7b": "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106": "gpt-4-1106-preview"}
_RIGHT = {"True": 1, "False": 0}


def outcomes(repository: Path, dataset: str, price_ratio: float) -> list[dict[str, Any]]:
    """The lines of an outcome file, in the repository's order; a question that comes again is left out.

    Raises:
        BenchmarkError: the repository has no such files, or not in the form of 2024-08.
    """
    files = sorted(repository.glob(_FILES[dataset]))
    if not files:
        raise BenchmarkError(f"{repository} has no {_FILES[dataset]}: name a clone of https://github.com/lm-sys/RouteLLM")
    lines: dict[str, dict[str, Any]] = {}
    for file in files:
        with file.open(newline="", encoding="utf-8") as opened:
            for number, row in enumerate(csv.DictReader(opened)):
                try:
                    lines.setdefault(row["prompt"], _line(f"{file.stem}-{number}", row, price_ratio))
                except KeyError as error:
                    raise BenchmarkError(f"{file} has no {error} in its row {number}; its form is another than that of 2024-08") from error
    return list(lines.values())


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """As JSON lines."""
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")


def _line(name: str, row: dict[str, str], price_ratio: float) -> dict[str, Any]:
    costs = dict(zip(_COLUMNS, (price_ratio, 1.0), strict=True))
    found = {tier: {"quality": _RIGHT[row[column]], "cost": costs[tier], "signals": {}} for tier, column in _COLUMNS.items()}
    return {"id": name, "messages": [{"role": "user", "content": row["prompt"]}], "outcomes": found}


def main(words: Sequence[str] | None = None) -> int:
    """Write a file, of all questions or of as many as `--num` says, drawn by lot."""
    parser = argparse.ArgumentParser(prog="benchmarks.routellm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--price-ratio", type=float, default=0.1)
    parser.add_argument("--num", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    if not 0 <= options.price_ratio < 1:
        parser.error(f"--price-ratio {options.price_ratio}: Mixtral's price by GPT-4's, from 0 to less than 1")
    try:
        lines = outcomes(options.repository, options.dataset, options.price_ratio)
    except BenchmarkError as error:
        parser.error(str(error))
    if options.num is not None and not 0 < options.num <= len(lines):
        parser.error(f"--num {options.num}: there are {len(lines)} questions")
    chosen = lines if options.num is None else random.Random(options.seed).sample(lines, options.num)  # noqa: S311 - a sample, not a secret
    write(options.out, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
