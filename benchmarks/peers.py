"""Tokenport beside vLLM's own server, transformers' and llama.cpp's, on one machine in one run: output tokens a second and latencies.

    python -m benchmarks.peers MODEL_FOLDER --llama-python PYTHON --gguf-bf16 FILE --gguf-q8 FILE --out benchmarks/results/FILE.json

PYTHON is that of a virtual environment with `llama-cpp-python[server]`; the files are what `python -m benchmarks.gguf_types` writes.
Servers are started one after the other and stay. Loads go round them, seconds apart, since a shared machine's speed drifts by the minute:
what to read is the ratio within a round. Every measurement is `tokenport bench throughput`'s; the file keeps all metrics of each, without
raw times."""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant, running
from benchmarks.result_file import keep

_INPUT_TOKENS, _OUTPUT_TOKENS = 64, 32
_MEASURE_DEADLINE_S = 900.0
_FIRST = "tokenport bf16"
_KEPT = (
    "output_tokens_per_s",
    "requests_per_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "num_requests",
    "num_failed",
    "tokens",
    "whole_run",
    "window_s",
)


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """By engine and by precision."""
    transformers = [str(Path(sys.executable).parent / "transformers"), "serve", "{model}", "--port", "{port}", "--device", "cpu", "--dtype"]
    return [
        Contestant(_FIRST, TOKENPORT),
        Contestant("tokenport int8", [*TOKENPORT, "--quantization", "int8"]),
        Contestant("vllm bf16, eager", [*VLLM, "--enforce-eager"], BARE),
        Contestant("vllm bf16, compiled", VLLM, BARE),
        Contestant("transformers bf16", [*transformers, "bfloat16"], health="/health"),
        *(Contestant(f"llama.cpp {name}", _llama(options, file), health="/v1/models") for name, file in _gguf_files(options)),
    ]


def _gguf_files(options: argparse.Namespace) -> list[tuple[str, Path]]:
    return [("bf16", options.gguf_bf16), ("q8_0", options.gguf_q8)]


def _llama(options: argparse.Namespace, file: Path) -> list[str]:
    """One request at a time is all that this server does; without the switch a new request ends the one before it."""
    words = [str(options.llama_python), "-m", "llama_cpp.server", "--model", str(file), "--port", "{port}", "--n_ctx", "2048"]
    return [*words, "--n_threads", str(options.num_threads), "--interrupt_requests", "False"]


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each start and each measurement, as soon as it is made."""
    chosen = [one for one in contestants(options) if one.name not in options.without]
    with contextlib.ExitStack() as servers:
        urls: dict[str, str] = {}
        for contestant in chosen:
            server = servers.enter_context(running(contestant, str(options.model), options.log))
            urls[contestant.name] = server.url
            yield {"contestant": contestant.name, "start_s": server.start_s, "pss_bytes": server.pss_bytes()}
        for number in range(1, options.rounds + 1):
            for concurrency in options.concurrency:
                for name, url in urls.items():
                    yield {
                        "contestant": name,
                        "round": number,
                        "concurrency": concurrency,
                        **_measure(options, name, url, concurrency, number),
                    }


def _measure(options: argparse.Namespace, name: str, url: str, concurrency: int, round_number: int) -> dict[str, Any]:
    """The metrics of one run of `tokenport bench throughput`."""
    with tempfile.TemporaryDirectory(prefix="tokenport-peers-") as folder:
        out = Path(folder) / "run.json"
        words = [sys.executable, "-m", "benchmarks", "throughput", "--url", url, "--no-limits", "--out", str(out)]
        words += ["--tokenizer", str(options.model), "--concurrency", str(concurrency), "--num-requests", str(max(8, 2 * concurrency))]
        words += ["--input-len", str(_INPUT_TOKENS), "--output-len", str(_OUTPUT_TOKENS), "--seed", str(round_number)]
        if name.startswith("transformers"):
            # It does not say by what name its model is asked for.
            words += ["--model", str(options.model)]
        # Every place once before: the first requests of a shape allocate, or compile.
        words += ["--warmup", str(concurrency)]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_MEASURE_DEADLINE_S)
        if not out.exists():
            raise RuntimeError(f"{url} at {concurrency}: {ended.stderr[-500:]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    kept = {name: found["metrics"][name] for name in _KEPT}
    return {"valid": found["valid"], "invalid_reasons": found["invalid_reasons"], "warnings": found["warnings"], "metrics": kept}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By contestant and concurrency the median tokens a second, and of the first to each other the median of the rounds' ratios."""
    speeds = {
        (row["contestant"], row["concurrency"], row["round"]): row["metrics"]["output_tokens_per_s"] for row in rows if "concurrency" in row
    }
    table: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(contestant for contestant, _, _ in speeds):
        for concurrency in sorted({one for _, one, _ in speeds}):
            own = {number: speed for (of, at, number), speed in speeds.items() if (of, at) == (name, concurrency) and speed}
            if not own:
                continue
            table.setdefault(name, {})[str(concurrency)] = statistics.median(own.values())
            ratios = [
                speeds[_FIRST, concurrency, number] / speed for number, speed in own.items() if (_FIRST, concurrency, number) in speeds
            ]
            if name != _FIRST and ratios:
                table.setdefault(f"{_FIRST} / {name}", {})[str(concurrency)] = statistics.median(ratios)
    return table


def main() -> None:
    """Read the command line, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with a checkpoint")
    parser.add_argument("--llama-python", type=Path, required=True)
    parser.add_argument("--gguf-bf16", type=Path, required=True)
    parser.add_argument("--gguf-q8", type=Path, required=True)
    parser.add_argument("--num-threads", type=int, default=2, help="of llama.cpp, which takes half of the cores by itself (default: 2)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], metavar="CONTESTANT", help="leave these out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="where the servers' output goes")
    options = parser.parse_args()
    words = ["MODEL_FOLDER", "--llama-python", "PYTHON", "--gguf-bf16", "FILE", "--gguf-q8", "FILE", "--rounds", str(options.rounds)]
    head = {
        "schema_version": 1,
        "command": " ".join(["python -m benchmarks.peers", *words]),
        "model": options.model.name,
        "input_tokens": _INPUT_TOKENS,
        "output_tokens": _OUTPUT_TOKENS,
        "llama_cpp_python": _version_in(options.llama_python),
    }
    keep(options.out, head, run(options), summary)


def _version_in(python: Path) -> str:
    words = [str(python), "-c", "from importlib.metadata import version; print(version('llama-cpp-python'))"]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


if __name__ == "__main__":
    main()
