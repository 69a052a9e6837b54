"""Tokenport's CPU defaults against bare vLLM's, side by side: same machine, model and requests over HTTP.

    python -m benchmarks.cpu_defaults MODEL_FOLDER --out benchmarks/results/FILE.json

Servers are started one after the other and stay; loads go round them, A B C D A B C D, seconds apart, since a shared machine's speed drifts
by the minute. The file keeps every measurement, the machine and the versions; what to read is the ratio within a round.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

_START_DEADLINE_S = 500.0
_STOP_DEADLINE_S = 40.0
_MAX_MODEL_LEN = 2048
# The same KV cache for all: each would take what is free, of which the first would leave too little.
_ENGINE_ARGUMENTS = ["--max-model-len", str(_MAX_MODEL_LEN), "--kv-cache-memory-bytes", "1G"]
_VLLM = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_ENGINE_ARGUMENTS]


@dataclass(frozen=True)
class Contestant:
    """A server to start: `{model}` and `{port}` in the command are filled in."""

    name: str
    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """`num_requests` at once, each of a prompt of `prompt_tokens` and exactly `output_tokens` generated."""

    name: str
    num_requests: int
    prompt_tokens: int
    output_tokens: int

    @property
    def counted_tokens(self) -> int:
        """Output tokens, or for a load that generates one token a request the prompt's."""
        return self.num_requests * (self.output_tokens if self.output_tokens > 1 else self.prompt_tokens)


LOADS = (Load("1 stream", 1, 20, 96), Load("32 streams", 32, 20, 64), Load("prefill", 8, 500, 1))


def contestants() -> list[Contestant]:
    """Tokenport and vLLM as each starts by itself; vLLM uncompiled; vLLM with the choices that Tokenport makes."""
    libiomp = Path(sys.prefix) / "lib" / "libiomp5.so"
    # vLLM would load Tokenport's plugin, which is installed beside it.
    bare = {"VLLM_PLUGINS": ""}
    tuned = bare | {"LD_PRELOAD": str(libiomp), "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    return [
        Contestant("tokenport", [sys.executable, "-m", "serving", "serve", "{model}", "--port", "{port}", *_ENGINE_ARGUMENTS]),
        Contestant("vllm defaults", [*_VLLM, "--model", "{model}", "--port", "{port}"], bare),
        Contestant("vllm defaults, eager", [*_VLLM, "--model", "{model}", "--port", "{port}", "--enforce-eager"], bare),
        Contestant("vllm tuned", [*_VLLM, "--model", "{model}", "--port", "{port}", "--enforce-eager", "--dtype", "bfloat16"], tuned),
    ]


@contextlib.contextmanager
def running(contestant: Contestant, model: str, log: Path) -> Iterator[tuple[str, float]]:
    """Start a contestant, yield its URL and the seconds to its first answer, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [word.format(model=model, port=port) for word in contestant.command]
    environ = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **contestant.environ}
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() - started > _START_DEADLINE_S:
                raise RuntimeError(f"{contestant.name} did not start, see {log}")
            time.sleep(0.2)
        yield url, time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_up(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/ping", timeout=5).status_code == httpx.codes.OK
    return False


async def measure(url: str, load: Load) -> dict[str, float]:
    """Run `load` once: tokens a second over the whole, and for one stream the time between tokens."""
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=None)) as client:
        started = time.monotonic()
        arrivals = await asyncio.gather(*(_request(client, load, number) for number in range(load.num_requests)))
        wall_s = time.monotonic() - started
    row = {"tokens_per_s": load.counted_tokens / wall_s, "wall_s": wall_s}
    if load.num_requests == 1:
        times = arrivals[0]
        row |= {"ttft_s": times[0] - started, "tpot_s": (times[-1] - times[0]) / (load.output_tokens - 1)}
    return row


async def _request(client: httpx.AsyncClient, load: Load, number: int) -> list[float]:
    # Token ids, so that lengths are exact; different for each request and time, so that no prefix is cached.
    salt = time.monotonic_ns() % 9973
    prompt = [100 + (salt * 31 + number * 7919 + position * 13) % 4000 for position in range(load.prompt_tokens)]
    body = {"prompt": prompt, "max_tokens": load.output_tokens, "ignore_eos": True, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    arrivals: list[float] = []
    generated = 0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["choices"]:
                arrivals.append(time.monotonic())
            if chunk.get("usage"):
                generated = chunk["usage"]["completion_tokens"]
    if generated != load.output_tokens:
        raise RuntimeError(f"{load.name}: {generated} tokens instead of {load.output_tokens}")
    return arrivals


def run(model: str, rounds: int, log: Path, without: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row for each start and each measurement, as soon as it is made. The first round warms up and is left out."""
    with contextlib.ExitStack() as servers:
        urls: dict[str, str] = {}
        for contestant in (one for one in contestants() if one.name not in without):
            urls[contestant.name], start_s = servers.enter_context(running(contestant, model, log))
            yield {"contestant": contestant.name, "start_s": start_s}
        for number in range(rounds + 1):
            for load in LOADS:
                for name, url in urls.items():
                    measured = asyncio.run(measure(url, load))
                    if number:
                        yield {"contestant": name, "round": number, "load": load.name, **measured}


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each contestant the seconds to start and the median tokens a second; of Tokenport to each other the median of the ratios."""
    table: dict[str, dict[str, float]] = {row["contestant"]: {"start_s": row["start_s"]} for row in rows if "start_s" in row}
    speeds = {(row["contestant"], row["load"], row["round"]): row["tokens_per_s"] for row in rows if "load" in row}
    loads = list(dict.fromkeys(load for _, load, _ in speeds))
    for name, figures in table.items():
        figures |= {load: statistics.median(_of(speeds, name, load).values()) for load in loads if _of(speeds, name, load)}
    for name in list(table):
        if name != "tokenport":
            ratios = table.setdefault(f"tokenport / {name}", {"start_s": table["tokenport"]["start_s"] / table[name]["start_s"]})
            for load in loads:
                own, others = _of(speeds, "tokenport", load), _of(speeds, name, load)
                if others:
                    ratios[load] = statistics.median(own[number] / others[number] for number in others)
    return table


def _of(speeds: Mapping[tuple[str, str, int], float], contestant: str, load: str) -> dict[int, float]:
    """Tokens a second by round."""
    return {number: speed for (name, of_load, number), speed in speeds.items() if (name, of_load) == (contestant, load)}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in lscpu.splitlines() if ":" in line)
    return {
        "cpu": fields["Model name"].strip(),
        "family_model_stepping": "/".join(fields[name].strip() for name in ("CPU family", "Model", "Stepping")),
        "flags": sorted({"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2"} & set(fields["Flags"].split())),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("tokenport", "vllm-cpu", "torch", "intel-openmp")},
    }


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without", nargs="*", default=[], metavar="CONTESTANT", help="leave these out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the servers' output goes")
    options = parser.parse_args()
    left_out = " --without " + " ".join(map(repr, options.without)) if options.without else ""
    result: dict[str, Any] = {
        "schema_version": 2,
        "command": f"python -m benchmarks.cpu_defaults MODEL_FOLDER --rounds {options.rounds}{left_out}",
        "model": Path(options.model).name,
        "machine": machine(),
        "loads": [load.__dict__ for load in LOADS],
        "rows": [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for row in run(options.model, options.rounds, options.log, options.without):
        # Written after every row, so that stopping early loses nothing.
        result["rows"].append(row)
        result["summary_tokens_per_s"] = summary(result["rows"])
        result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary_tokens_per_s"], indent=1))


if __name__ == "__main__":
    main()
