"""From the start of a server's process to its first token: Tokenport beside bare vLLM, one after the other, round after round.

    python -m benchmarks.cold_start MODEL_FOLDER --out benchmarks/results/FILE.json

The first round fills page cache and vLLM's caches and is left out. A shared machine's speed drifts by the minute: what to read is the ratio
within a round. Each row says how loaded the machine was before the start and how much CPU time the server's processes took until then.
"""

import argparse
import os
import shlex
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant, Running, running
from benchmarks.result_file import keep


def contestants() -> list[Contestant]:
    """Tokenport first: it is held to the others. vLLM compiles by default, for minutes where its cache is empty."""
    return [
        Contestant("tokenport", TOKENPORT),
        Contestant("vllm eager", [*VLLM, "--enforce-eager"], BARE),
        Contestant("vllm defaults", VLLM, BARE),
    ]


def run(compared: Sequence[Contestant], model: str, rounds: int, log: Path) -> Iterator[dict[str, Any]]:
    """One row for each start, as soon as it is over. The first round is left out."""
    for number in range(rounds + 1):
        for contestant in compared:
            load = os.getloadavg()[0]
            with running(contestant, model, log) as server:
                row = {"contestant": contestant.name, "round": number, **measure(server)}
            if number:
                yield {**row, "load_before": load}


def measure(server: Running) -> dict[str, Any]:
    """Seconds to `/ping` 200 and to the end of a request for one token, which vLLM's `/ping` does not wait for."""
    ready = time.monotonic()
    name = httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]["id"]
    body = {"model": name, "prompt": [100, 200, 300], "max_tokens": 1}
    httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).raise_for_status()
    processes = [server.process, *server.process.children(recursive=True)]
    return {
        "ready_s": server.start_s,
        "first_token_s": server.start_s + time.monotonic() - ready,
        "cpu_s": sum(_cpu_s(process) for process in processes),
        "start_up_s": _phases(server.url),
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _phases(url: str) -> Any:
    """The server's own account, None from one that has none."""
    answer = httpx.get(f"{url}/memory", timeout=30)
    return answer.json()["start_up_s"] if answer.status_code == httpx.codes.OK else None


def summary(rows: Sequence[dict[str, Any]], first: str) -> dict[str, dict[str, float]]:
    """Of each contestant the median, least and most seconds to the first token, and of `first` to each other the ratios by round."""
    table: dict[str, dict[str, float]] = {}
    times = {(row["contestant"], row["round"]): row["first_token_s"] for row in rows}
    names = list(dict.fromkeys(name for name, _ in times))
    for name in names:
        table[name] = _spread([value for (of, _), value in times.items() if of == name])
    for name in names:
        shared = [number for of, number in times if of == name and (first, number) in times]
        if name != first and shared:
            table[f"{first} / {name}"] = _spread([times[first, number] / times[name, number] for number in shared])
    return table


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], metavar="CONTESTANT", help="leave these out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the servers' output goes")
    options = parser.parse_args()
    compared = [one for one in contestants() if one.name not in options.without]
    words = ["python", "-m", "benchmarks.cold_start", "MODEL_FOLDER", "--rounds", str(options.rounds)]
    words += ["--without", *options.without] if options.without else []
    head = {"schema_version": 1, "command": shlex.join(words), "model": Path(options.model).name}
    rows = run(compared, options.model, options.rounds, options.log)
    keep(options.out, head, rows, lambda rows: summary(rows, compared[0].name))


if __name__ == "__main__":
    main()
