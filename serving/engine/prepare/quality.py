"""What quantising costs: perplexity, and how far the next-token distribution moves from the 16-bit model's, on the text that ships along.

Steps: log-probabilities of the one, of the other (a process each, `log_probabilities.py`), compared row by row. Of any two models with one
vocabulary: `python -m serving.engine.prepare.quality REFERENCE MODEL` prints the same as JSON. Knows one device; no ranks.
"""

import argparse
import functools
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from serving.engine.child_process import run_module
from serving.engine.preflight import read_config
from serving.errors import ModelUnavailable, TokenportError

if TYPE_CHECKING:
    import numpy as np

_DEADLINE_S = 3600.0
_ROWS_AT_ONCE = 128
_ASSUMED_TOKENS = 4096
"""More than the text has in any tokenizer that splits English into words."""

Runtime = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Subject:
    """A model to ask: its folder, vLLM's arguments beyond the chosen ones, and what runs it."""

    model: Path
    engine: Mapping[str, Any]
    runtime: Runtime = "vllm"


@dataclass(frozen=True)
class Quality:
    """`kl_*`: Kullback-Leibler divergence of the model from the reference over the whole vocabulary, in nats per token.
    `top1_agreement`: share of tokens for which both have the same most probable one."""

    num_tokens: int
    perplexity_reference: float
    perplexity: float
    kl_mean: float
    kl_p99: float
    kl_max: float
    top1_agreement: float
    runtime: str


def compare(reference: Subject, subject: Subject, work: Path, report: Callable[[str, float], None]) -> Quality:
    """Ask both, one after the other. `work` is a folder for the log-probabilities: 4 bytes a token and word of the vocabulary, twice.

    `report(step, fraction)` hears the progress.

    Raises:
        ModelUnavailable: one of the two does not run, their vocabularies differ, or there is no room in `work`.
    """
    vocabulary = int(read_config(reference.model).get("vocab_size") or 0)
    needed_bytes = 2 * 4 * vocabulary * _ASSUMED_TOKENS
    if (free_bytes := shutil.disk_usage(work).free) < needed_bytes:
        raise ModelUnavailable(f"{work} needs {needed_bytes / 1e9:.1f} GB to measure quality and has {free_bytes / 1e9:.1f} GB: free some")
    arrays = []
    with tempfile.TemporaryDirectory(prefix="quality-", dir=work) as folder:
        for name, asked in (("reference", reference), ("model", subject)):
            arrays.append(ask(asked, Path(folder) / f"{name}.npy", functools.partial(report, name)))
        (expected, targets), (found, other_targets) = arrays
        if expected.shape != found.shape or targets.tolist() != other_targets.tolist():
            raise ModelUnavailable(f"{subject.model} and {reference.model} do not split text alike, so they cannot be compared")
        return _compared(expected, found, targets, subject.runtime)


def ask(subject: Subject, out: Path, report: Callable[[float], None]) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Log-probabilities [tokens, vocabulary] of the text's next tokens, which stay in the file `out` until they are read, and those tokens.

    Raises:
        ModelUnavailable: the model does not run, or takes longer than an hour.
    """
    import numpy as np

    def on_line(line: str) -> bool:
        progress = re.fullmatch(r'\{"fraction": ([0-9.]+)\}', line)
        if progress:
            report(float(progress[1]))
        return progress is not None

    spec = {"model": str(subject.model), "engine": dict(subject.engine), "runtime": subject.runtime, "out": str(out)}
    why = run_module("serving.engine.prepare.log_probabilities", spec, deadline_s=_DEADLINE_S, on_line=on_line)
    if why is not None:
        raise ModelUnavailable(f"{subject.model} does not run through {subject.runtime}: {why}")
    return np.load(out, mmap_mode="r", allow_pickle=False), np.load(out.with_suffix(".targets.npy"), allow_pickle=False)


def _compared(expected: "np.ndarray[Any, Any]", found: "np.ndarray[Any, Any]", targets: "np.ndarray[Any, Any]", runtime: str) -> Quality:
    import numpy as np

    divergences, agreements, losses = [], 0, [0.0, 0.0]
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        exact, other = expected[rows].astype(np.float64), found[rows].astype(np.float64)
        divergences.append((np.exp(exact) * (exact - other)).sum(axis=1))
        agreements += int((exact.argmax(axis=1) == other.argmax(axis=1)).sum())
        for index, scores in enumerate((exact, other)):
            losses[index] -= float(np.take_along_axis(scores, targets[rows, None], axis=1).sum())
    divergence = np.concatenate(divergences)
    return Quality(
        num_tokens=len(targets),
        perplexity_reference=float(np.exp(losses[0] / len(targets))),
        perplexity=float(np.exp(losses[1] / len(targets))),
        kl_mean=float(divergence.mean()),
        kl_p99=float(np.quantile(divergence, 0.99)),
        kl_max=float(divergence.max()),
        top1_agreement=agreements / len(targets),
        runtime=runtime,
    )


def main() -> int:
    """The command line. The environment is the caller's to set, as for the server."""
    parser = argparse.ArgumentParser(prog="quality", description="Compare two models of one vocabulary on the text that ships along.")
    parser.add_argument("reference", type=Path, help="a folder with the 16-bit checkpoint")
    parser.add_argument("model", type=Path, help="a folder with the other one; the same folder with --engine compares two ways to load it")
    parser.add_argument("--engine", type=json.loads, default={}, help='vLLM arguments of the other one, as {"quantization": "int8"}')
    parser.add_argument("--runtime", choices=("vllm", "transformers"), default="vllm", help="what runs both")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="tokenport-") as work:
            subject = Subject(options.model, options.engine, options.runtime)
            quality = compare(Subject(options.reference, {}, options.runtime), subject, Path(work), lambda *_: None)
    except TokenportError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(quality), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
