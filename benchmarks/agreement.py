"""Whether `tokenport bench throughput`, `vllm bench serve` and guidellm say the same of one server under one load, definitions mapped.

    python -m benchmarks.agreement --serve MODEL_FOLDER --guidellm GUIDELLM --out benchmarks/results/FILE.json

GUIDELLM is its command in a virtual environment of its own. The three measure in turn, round after round. All of it is mapped to what the
other two can say: output tokens a second over the whole run, ramp and drain included; TTFT from the sending, over all requests; TPOT
without the first token, which is vLLM's `tpot` and guidellm's `inter_token_latency` (its `time_per_output_token` has the first token in
it)."""

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine.servers import TOKENPORT, Contestant, running
from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.record import from_json
from benchmarks.measuring.window import whole_run
from benchmarks.result_file import keep

_DEADLINE_S = 900.0
_OWN = "tokenport bench"
_FIGURES = ("output_tokens_per_s", "ttft_s", "tpot_s")
# What the `vllm` command does; the CPU build has no metadata of that name, without which the command does not start.
_VLLM = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser(); add_cli_args(parser); "
    "main(parser.parse_args())"
)


@dataclass(frozen=True, slots=True)
class Work:
    """One server and the load that all three put on it."""

    url: str
    model: str
    tokenizer: Path
    guidellm: Path
    concurrency: int
    num_requests: int
    input_tokens: int
    output_tokens: int


def own(work: Work, seed: int, folder: Path) -> dict[str, float]:
    """`tokenport bench throughput`."""
    out = folder / "own.json"
    words = [sys.executable, "-m", "benchmarks", "throughput", "--url", work.url, "--model", work.model, "--no-limits", "--out", str(out)]
    words += ["--concurrency", str(work.concurrency), "--num-requests", str(work.num_requests), "--seed", str(seed)]
    words += ["--tokenizer", str(work.tokenizer), "--input-len", str(work.input_tokens), "--output-len", str(work.output_tokens)]
    _run(words, out)
    records = [from_json(fields) for fields in json.loads(out.read_text(encoding="utf-8"))["requests"]]
    found = metrics(records, whole_run(records), from_send=True)
    return {"output_tokens_per_s": found["output_tokens_per_s"], "ttft_s": found["ttft_s"]["mean"], "tpot_s": found["tpot_s"]["mean"]}


def vllm(work: Work, seed: int, folder: Path) -> dict[str, float]:
    """`vllm bench serve`."""
    out = folder / "vllm.json"
    words = [sys.executable, "-c", _VLLM, "--backend", "openai", "--base-url", work.url, "--model", work.model, "--dataset-name", "random"]
    words += [
        "--tokenizer",
        str(work.tokenizer),
        "--random-input-len",
        str(work.input_tokens),
        "--random-output-len",
        str(work.output_tokens),
    ]
    words += ["--num-prompts", str(work.num_requests), "--max-concurrency", str(work.concurrency), "--seed", str(seed), "--ignore-eos"]
    _run([*words, "--save-result", "--result-dir", str(folder), "--result-filename", out.name], out)
    found = json.loads(out.read_text(encoding="utf-8"))
    return {
        "output_tokens_per_s": found["output_throughput"],
        "ttft_s": found["mean_ttft_ms"] / 1000,
        "tpot_s": found["mean_tpot_ms"] / 1000,
    }


def guidellm(work: Work, seed: int, folder: Path) -> dict[str, float]:
    """`guidellm run`."""
    out = folder / "guidellm.json"
    words = [
        str(work.guidellm),
        "run",
        "--backend",
        f"kind=openai_http,target={work.url},model={work.model},request_format=/v1/completions",
    ]
    words += ["--profile", f"kind=concurrent,streams={work.concurrency}", "--constraint", f"kind=max_requests,count={work.num_requests}"]
    words += ["--data", f"kind=synthetic_text,prompt_tokens={work.input_tokens},output_tokens={work.output_tokens}"]
    words += ["--tokenizer", f"kind=huggingface_auto,model={work.tokenizer}", "--seed", f"kind=static,value={seed}"]
    _run([*words, "--output", f"kind=json,path={out}", "--disable-console"], out)
    found = json.loads(out.read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    return {
        "output_tokens_per_s": found["output_tokens_per_second"]["successful"]["mean"],
        "ttft_s": found["time_to_first_token_ms"]["successful"]["mean"] / 1000,
        "tpot_s": found["inter_token_latency_ms"]["successful"]["mean"] / 1000,
    }


TOOLS: Mapping[str, Callable[[Work, int, Path], dict[str, float]]] = {_OWN: own, "vllm bench serve": vllm, "guidellm": guidellm}


def run(work: Work, rounds: int) -> Iterator[dict[str, Any]]:
    """One row for each measurement. The first round warms up and is left out."""
    for number in range(rounds + 1):
        for name, measure in TOOLS.items():
            with tempfile.TemporaryDirectory(prefix="tokenport-agreement-") as folder:
                found = measure(work, number, Path(folder))
            if number:
                yield {"tool": name, "round": number, **found}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The medians of each, and of ours to each other the medians of the rounds' ratios."""
    table: dict[str, dict[str, float]] = {}
    of = {(row["tool"], row["round"]): row for row in rows}
    for name in TOOLS:
        rounds = [number for tool, number in of if tool == name and (_OWN, number) in of]
        if not rounds:
            continue
        table[name] = {figure: statistics.median(of[name, number][figure] for number in rounds) for figure in _FIGURES}
        if name != _OWN:
            table[f"{_OWN} / {name}"] = {
                figure: statistics.median(of[_OWN, number][figure] / of[name, number][figure] for number in rounds) for figure in _FIGURES
            }
    return table


def _run(words: Sequence[str], out: Path) -> None:
    environ = {**os.environ, "VLLM_PLUGINS": "", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=_DEADLINE_S)
    if not out.exists():
        raise RuntimeError(f"{shlex.join(words[:4])} ... ended with {ended.returncode}: {ended.stderr[-800:]}")


def main() -> None:
    """Read the command line, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--serve", type=Path, required=True, metavar="FOLDER", help="the checkpoint to serve, whose tokenizer all three use"
    )
    parser.add_argument("--url", help="measure this server, which serves it or is a stub, rather than start one")
    parser.add_argument("--model", help="the model's name there (default: the folder's)")
    parser.add_argument("--guidellm", type=Path, required=True, help="guidellm's command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--num-requests", type=int, default=80)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with contextlib.ExitStack() as servers:
        url = options.url or servers.enter_context(running(Contestant("tokenport", TOKENPORT), str(options.serve), Path(os.devnull))).url
        work = Work(
            url=url,
            model=options.model or options.serve.name,
            tokenizer=options.serve,
            guidellm=options.guidellm,
            concurrency=options.concurrency,
            num_requests=options.num_requests,
            input_tokens=options.input_len,
            output_tokens=options.output_len,
        )
        version = subprocess.run(
            [str(options.guidellm), "--version"], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
        words = ["--serve", "MODEL_FOLDER", "--guidellm", "GUIDELLM", "--rounds", str(options.rounds)]
        words += ["--url", "URL", "--model", work.model] if options.url else []
        head = {
            "schema_version": 1,
            "command": shlex.join(["python", "-m", "benchmarks.agreement", *words]),
            "model": options.serve.name,
            "guidellm": version,
            "load": {name: getattr(work, name) for name in ("concurrency", "num_requests", "input_tokens", "output_tokens")},
        }
        keep(options.out, head, run(work, options.rounds), summary)


if __name__ == "__main__":
    main()
