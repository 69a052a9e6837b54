"""`python -m benchmarks.tiny_pair.cascade PAIR --out FILE`: the whole way of a policy on the tiny pair, with real engines and streams.

A server with both as tiers is asked the first half of the questions (`cascade collect`), a policy is fitted, and a server that holds it is
asked the other half (`bench cascade`). FILE is what that measured, with what `cascade eval` says of the same half beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine.servers import Contestant, Running, running
from benchmarks.report import document

_HOLD_TOKENS = 6
_PRICES = {"small": {"input": 0.1, "output": 0.1}, "large": {"input": 1.0, "output": 1.0}}
"""USD for a million tokens: a tenth, as an example. What these two really cost a token is nearly the same."""
_ENGINE = {"max_model_len": 64, "kv_cache_memory_bytes": 2**26, "max_num_seqs": 32}
_TIERS = "small,large"
_COMMAND_DEADLINE_S = 1800


def main() -> int:
    """Run it. The folder's `questions.jsonl` is halved as it stands: it was drawn at random."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_pair.cascade", description=__doc__)
    parser.add_argument("pair", type=Path, help="what `python -m benchmarks.tiny_pair` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--quality", default="0.95", help="share of the large model's quality to keep (default: %(default)s)")
    parser.add_argument("--confidence", default="0.9", help="how sure to be of it (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenport-") as name:
        work = Path(name)
        lines = (options.pair / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        halves = {"fit": lines[: len(lines) // 2], "held-out": lines[len(lines) // 2 :]}
        for half, half_lines in halves.items():
            (work / f"{half}.jsonl").write_text("".join(half_lines), encoding="utf-8")
        with _serving(options.pair, work, {}) as server:
            for half in halves:
                words = ["--url", server.url, "--tiers", _TIERS, "--hold-tokens", str(_HOLD_TOKENS)]
                _tokenport("cascade", "collect", work / f"{half}.jsonl", *words, "--out", work / f"{half}.outcomes.jsonl")
        policy = work / "policy.json"
        asked = ["--quality", options.quality, "--confidence", options.confidence, "--tiers", _TIERS]
        holds_for = [word for tier in _PRICES for word in ("--model", f"{tier}={options.pair / f'tiny-{tier}'}")]
        _tokenport("cascade", "fit", work / "fit.outcomes.jsonl", *asked, *holds_for, "--out", policy)
        predicted = json.loads(_tokenport("cascade", "eval", work / "held-out.outcomes.jsonl", "--policy", policy, "--json"))
        with _serving(options.pair, work, {"policy": str(policy)}) as server:
            words = ["--questions", str(work / "held-out.jsonl"), "--tiers", _TIERS, "--out", str(work / "measured.json")]
            print(_tokenport("bench", "cascade", server.url, *words))
        measured = document.load(work / "measured.json")
        # Six thousand answers are megabytes, and the figures are made of them already.
        del measured["answers"]
        # The folder of this run is nobody else's: the command that repeats it is this one.
        measured["command"] = f"python -m benchmarks.tiny_pair.cascade PAIR --quality {options.quality} --confidence {options.confidence}"
        document.keep({**measured, "policy": json.loads(policy.read_text(encoding="utf-8")), "predicted": predicted}, options.out)
    return 0


def _serving(pair: Path, work: Path, policy: Mapping[str, str]) -> AbstractContextManager[Running]:
    """A server with both models as tiers."""
    large = {"name": "large", "engine": "vllm", "model": str(pair / "tiny-large"), "arguments": _ENGINE, "price": _PRICES["large"]}
    cascade = {**policy, "tiers": [{"name": "small", "engine": "local", "price": _PRICES["small"]}, large]}
    file = work / "cascade.yaml"
    file.write_text(yaml.safe_dump(cascade), encoding="utf-8")
    flags = [word for name, value in _ENGINE.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "serving", "serve", "{model}", "--port", "{port}", "--cascade", str(file), *flags]
    return running(Contestant("the cascade", command), str(pair / "tiny-small"), work / "server.log")


def _tokenport(*words: Any) -> str:
    """What a command prints. It says itself, on standard error, what it has to say besides."""
    command = [sys.executable, "-P", "-m", "serving", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_COMMAND_DEADLINE_S)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
