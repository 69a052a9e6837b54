"""Two or more commands measured in turn, round by round, so that what changes on the machine meanwhile meets all of them alike."""

import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.report.document import keep, load
from serving.errors import BenchmarkError

MEASURING = ("throughput", "latency", "startup", "memory", "quality")
LETTERS = "ABCDEFGH"
_INVALID_EXIT_CODE = 3

RunOne = Callable[[Sequence[str], float], int]


def sides_of(lines: Sequence[str]) -> list[list[str]]:
    """Each side's command line as words.

    Raises:
        BenchmarkError: fewer than two, no command that measures, or one that says itself where the result goes.
    """
    if not 2 <= len(lines) <= len(LETTERS):
        raise BenchmarkError(f'--paired takes 2 to {len(LETTERS)} commands, each in quotes: -- "throughput --url A" "throughput --url B"')
    sides = [shlex.split(line) for line in lines]
    for words, line in zip(sides, lines, strict=True):
        if not words or words[0] not in MEASURING:
            raise BenchmarkError(f"--paired {line!r}: begin with what measures: {', '.join(MEASURING)}")
        own = words[: words.index("--")] if "--" in words else words
        if any(word == "--out" or word.startswith("--out=") for word in own):
            raise BenchmarkError(f"--paired {line!r}: leave --out away, results go to --out-dir")
    if len({words[0] for words in sides}) > 1:
        raise BenchmarkError(f"--paired: all sides have to measure the same, not {' and '.join(words[0] for words in sides)}")
    return sides


def measure(sides: Sequence[Sequence[str]], rounds: int, out_dir: Path, *, order: str, timeout_s: float, run_one: RunOne) -> list[Path]:
    """Run every side once a round and keep each result in `out_dir`, marked with its pair. Results so far stay there if one fails.

    `order`: `abab` keeps the order of the sides, `abba` turns it round in every other round. `run_one` gets the words of a command with
    its --out and a deadline, and gives its exit code.

    Raises:
        BenchmarkError: the folder has results already, or a command failed.
    """
    if out_dir.exists() and any(out_dir.glob("*.json")):
        raise BenchmarkError(f"--out-dir {out_dir} has results already: give a new folder, or compare those: compare {out_dir}")
    identity, files = secrets.token_hex(8), []
    for number in range(1, rounds + 1):
        turn = list(zip(LETTERS, sides, strict=False))
        for letter, words in reversed(turn) if order == "abba" and number % 2 == 0 else turn:
            path = out_dir / f"round-{number:02d}-{letter.lower()}.json"
            print(f"round {number} of {rounds}, {letter}: {shlex.join(words)}", file=sys.stderr)
            # Right behind the command: what follows a -- belongs to the server.
            code = run_one([words[0], "--out", str(path), *words[1:]], timeout_s)
            if code not in (0, _INVALID_EXIT_CODE) or not path.exists():
                raise BenchmarkError(
                    f"round {number}, {letter}: {shlex.join(words)} ended with exit code {code}; results so far: {out_dir}"
                )
            keep({**load(path), "pair": {"id": identity, "position": letter, "round": number}}, path)
            files.append(path)
    return files


def as_process(environ: Mapping[str, str]) -> RunOne:
    """Runs a command as a process of its own, its output on stderr: what a run leaves in memory does not meet the next one."""

    def run_one(words: Sequence[str], timeout_s: float) -> int:
        command = [sys.executable, "-P", "-m", "benchmarks", *words]
        try:
            return subprocess.run(command, env=dict(environ), stdout=sys.stderr, timeout=timeout_s, check=False).returncode
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{shlex.join(words)} was not over after {timeout_s:g} s (--round-timeout-s)") from None

    return run_one
