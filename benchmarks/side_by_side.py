"""Servers side by side: same machine and requests over HTTP.

Servers are started one after the other and stay; loads go round them, A B C D A B C D, seconds apart, since a shared machine's speed drifts
by the minute. The file keeps every measurement, the machine and the versions; what to read is the ratio within a round.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine.servers import Contestant, ledger, running
from benchmarks.result_file import keep


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


def run(contestants: Sequence[Contestant], model: str, rounds: int, log: Path) -> Iterator[dict[str, Any]]:
    """One row for each start and each measurement, as soon as it is made. The first round warms up and is left out."""
    with contextlib.ExitStack() as servers:
        urls: dict[str, str] = {}
        for contestant in contestants:
            server = servers.enter_context(running(contestant, model, log))
            urls[contestant.name] = server.url
            yield {"contestant": contestant.name, "start_s": server.start_s, "pss_bytes": server.pss_bytes(), "ledger": ledger(server.url)}
        for number in range(rounds + 1):
            for load in LOADS:
                for name, url in urls.items():
                    measured = asyncio.run(measure(url, load))
                    if number:
                        yield {"contestant": name, "round": number, "load": load.name, **measured}


def summary(rows: list[dict[str, Any]], first: str) -> dict[str, dict[str, float]]:
    """Of each contestant the seconds to start and the median tokens a second; of `first` to each other the median of the ratios."""
    table: dict[str, dict[str, float]] = {row["contestant"]: {"start_s": row["start_s"]} for row in rows if "start_s" in row}
    speeds = {(row["contestant"], row["load"], row["round"]): row["tokens_per_s"] for row in rows if "load" in row}
    loads = list(dict.fromkeys(load for _, load, _ in speeds))
    for name, figures in table.items():
        figures |= {load: statistics.median(_of(speeds, name, load).values()) for load in loads if _of(speeds, name, load)}
    for name in list(table):
        if name != first:
            ratios = table.setdefault(f"{first} / {name}", {"start_s": table[first]["start_s"] / table[name]["start_s"]})
            for load in loads:
                own, others = _of(speeds, first, load), _of(speeds, name, load)
                if others:
                    ratios[load] = statistics.median(own[number] / others[number] for number in others)
    return table


def _of(speeds: Mapping[tuple[str, str, int], float], contestant: str, load: str) -> dict[int, float]:
    """Tokens a second by round."""
    return {number: speed for (name, of_load, number), speed in speeds.items() if (name, of_load) == (contestant, load)}


def main(module: str, doc: str, make: Callable[[argparse.Namespace], Sequence[Contestant]], *needs: str) -> None:
    """The command line of the comparison that `module` with the docstring `doc` describes: measure and write the file.

    `make` gives the contestants, of which the first is the one that is held to the others; `needs` are options that `make` reads, each a
    folder.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a checkpoint")
    for name in needs:
        parser.add_argument(f"--{name}", required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without", nargs="*", default=[], metavar="CONTESTANT", help="leave these out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the servers' output goes")
    options = parser.parse_args()
    contestants = [one for one in make(options) if one.name not in options.without]
    words = ["python", "-m", module, "MODEL_FOLDER", *(word for name in needs for word in (f"--{name}", "FOLDER"))]
    words += ["--rounds", str(options.rounds), *(["--without", *options.without] if options.without else [])]
    head = {
        "schema_version": 3,
        "command": shlex.join(words),
        "model": Path(options.model).name,
        "loads": [load.__dict__ for load in LOADS],
    }
    rows = run(contestants, options.model, options.rounds, options.log)
    keep(options.out, head, rows, lambda rows: summary(rows, contestants[0].name))
