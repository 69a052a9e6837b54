"""A soak at twice the admission limit: what is let in must end whole, what is refused must be told when to return, memory must stay flat.

    python -m benchmarks.soak MODEL_FOLDER --minutes 10 --out benchmarks/results/FILE.json

Clients ask in a closed loop, half of them for streams, some of which hang up half way; the file keeps counts, memory samples and versions.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.machine.facts import machine
from benchmarks.machine.servers import Contestant, running

_NUM_SEQUENCES, _MAX_QUEUE = 16, 16
_NUM_CLIENTS = 2 * (_NUM_SEQUENCES + _MAX_QUEUE)
_HANG_UP_SHARE = 0.05
_SAMPLE_S = 5.0
_REQUEST_TIMEOUT_S = 120.0
_LIMITS = ["--max-num-seqs", str(_NUM_SEQUENCES), "--max-queue", str(_MAX_QUEUE), "--max-model-len", "1024"]
_COMMAND = [sys.executable, "-m", "serving", "serve", "{model}", "--port", "{port}", "--kv-cache-memory-bytes", "1G", *_LIMITS]
_SERVER = Contestant("tokenport", _COMMAND)


@dataclass
class Tally:
    """What happened to the requests."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: list[str] = field(default_factory=list)
    """Requests that were let in and did not end whole, with what was seen. There must be none."""
    retry_after_s: list[int] = field(default_factory=list)
    output_tokens: int = 0


async def client(http: httpx.AsyncClient, tally: Tally, until: float, seed: int) -> None:
    """Ask, wait as told where refused, ask again."""
    chance = random.Random(seed)  # noqa: S311 - load, not secrets
    while time.monotonic() < until:
        prompt = [100 + chance.randrange(4000) for _ in range(chance.randrange(5, 300))]
        body = {"prompt": prompt, "max_tokens": chance.randrange(5, 80), "ignore_eos": True, "stream": chance.random() < 0.5}
        try:
            wait_s = await _ask(http, tally, body, hangs_up=chance.random() < _HANG_UP_SHARE)
        except httpx.HTTPError as error:
            tally.lost.append(repr(error))
            wait_s = 1.0
        await asyncio.sleep(min(wait_s, max(0.0, until - time.monotonic())))


async def _ask(http: httpx.AsyncClient, tally: Tally, body: dict[str, Any], *, hangs_up: bool) -> float:
    """One request; returns the seconds to wait before the next."""
    async with http.stream("POST", "/invocations", json=body) as answer:
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            retry_after_s = int(answer.headers["retry-after"])
            tally.counts["refused with Retry-After"] += 1
            tally.retry_after_s.append(retry_after_s)
            return float(retry_after_s)
        if answer.status_code != httpx.codes.OK:
            tally.lost.append(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
            return 1.0
        if hangs_up and body["stream"]:
            await anext(answer.aiter_lines())
            tally.counts["hung up by the client"] += 1
            return 0.0
        text = (await answer.aread()).decode()
    is_whole = text.rstrip().endswith("data: [DONE]") and '"finish_reason":"length"' in text if body["stream"] else _is_whole(text, body)
    if is_whole:
        tally.counts["streams ended whole" if body["stream"] else "answers whole"] += 1
        tally.output_tokens += body["max_tokens"]
    else:
        tally.lost.append(text[-200:])
    return 0.0


def _is_whole(text: str, body: dict[str, Any]) -> bool:
    return bool(json.loads(text)["usage"]["completion_tokens"] == body["max_tokens"])


async def _sample_memory(server: psutil.Process, samples: list[dict[str, float]], started: float, until: float) -> None:
    while time.monotonic() < until:
        processes = {f"{process.name()} {process.pid}": process.memory_info().rss for process in (server, *server.children(recursive=True))}
        samples.append({"at_s": round(time.monotonic() - started, 1), "rss_bytes": sum(processes.values()), **processes})
        await asyncio.sleep(_SAMPLE_S)


async def soak(url: str, server: psutil.Process, minutes: float) -> dict[str, Any]:
    """Run the load and sum up."""
    tally, samples = Tally(), list[dict[str, float]]()
    started = time.monotonic()
    until = started + 60 * minutes
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_REQUEST_TIMEOUT_S, limits=limits) as http:
        await asyncio.gather(
            _sample_memory(server, samples, started, until), *(client(http, tally, until, seed) for seed in range(_NUM_CLIENTS))
        )
        wall_s = time.monotonic() - started
        alive = (await http.get("/ping")).status_code == httpx.codes.OK
    # After the first quarter every buffer and cache has been used.
    steady = [sample for sample in samples if sample["at_s"] > 15 * minutes]
    half = len(steady) // 2
    first, last = (statistics.median(sample["rss_bytes"] for sample in part) for part in (steady[:half], steady[half:]))
    return {
        "num_clients": _NUM_CLIENTS,
        "admission_limit": _NUM_SEQUENCES + _MAX_QUEUE,
        "wall_s": wall_s,
        "requests": dict(tally.counts),
        "lost": tally.lost,
        "output_tokens_per_s": tally.output_tokens / wall_s,
        "retry_after_s_median": statistics.median(tally.retry_after_s) if tally.retry_after_s else None,
        "alive_at_the_end": alive,
        "rss_growth_bytes": last - first,
        "rss_growth_share": (last - first) / first,
        "memory": samples,
    }


def main() -> int:
    """Soak and write the file. Returns 1 if a request was lost or the server is gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a checkpoint")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the server's output goes")
    options = parser.parse_args()
    with running(_SERVER, options.model, options.log) as server:
        result = asyncio.run(soak(server.url, server.process, options.minutes))
    result = {
        "schema_version": 1,
        "command": f"python -m benchmarks.soak MODEL_FOLDER --minutes {options.minutes:g}",
        "model": Path(options.model).name,
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **result,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name not in ("memory", "machine")}, indent=1))
    return 1 if result["lost"] or not result["alive_at_the_end"] else 0


if __name__ == "__main__":
    sys.exit(main())
