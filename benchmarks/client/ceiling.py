"""How much the client itself can take: `python -m benchmarks.client.ceiling --out FILE` drives a stub of its own, faster and faster.

For each number of streams and processes the rate of events is doubled until they no longer come in time. Client and stub share one
machine, so with few cores it is the two together that are measured, and the client alone can take no less.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.processes import Measured, run_plan
from benchmarks.client.running_stub import Stub, running_stub
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan, Request
from benchmarks.machine.facts import busyness, machine
from benchmarks.measuring.record import ClientLoad

STREAMS = (64, 512, 2048, 4096)
PROCESSES = (1, 2)
_FIRST_RATE = 10_000.0
_NUM_RATES = 6
_MEASURED_S = 2.0
# All streams are open before the first event comes.
_CONNECTING_S = 0.5
_CONNECTIONS_PER_S = 1000
_LEAST_DELIVERED = 0.95
_ALLOWED_LAG_S = 0.025
"""What a run's validity always allows, see measuring/validity.py."""
DEFINITIONS = {
    "offered_events_per_s": "Events a second that the stub's script has due, over all streams.",
    "delivered_events_per_s": "Events a second that came, between the last stream's first event and the first stream's last.",
    "loop_lag_s": "How late the regular wake-ups of the worst client process were meanwhile.",
    "most_events_per_s": "The most that was delivered at any rate.",
    "delivered_reads_per_s": "The same with events counted once that came in one read of one connection, as they do where gaps are short.",
    "most_on_time_events_per_s": f"The most that was delivered with the p99 lag within {_ALLOWED_LAG_S * 1000:g} ms; null: at no rate.",
    "most_on_time_reads_per_s": "Reads a second at that rate.",
    "client_cpu_us_per_event": "CPU time of all client processes over the whole run by the events that were due: what does not depend on "
    "how much of the machine others took. Events of one read cost less.",
    "cpu_share": "Of each client process, over its whole run, in cores; stub_cpu_share of the stub.",
}


def measure(num_streams: int, num_processes: int, rate: float) -> dict[str, Any]:
    """One rate of events over so many streams: what was delivered, and how the client fared."""
    gap_s = num_streams / rate
    num_events = max(3, round(_MEASURED_S / gap_s) + 1)
    plan = Plan(tuple(Request(number, "a prompt", num_events) for number in range(num_streams)), concurrency=num_streams)
    with running_stub(ttft_s=_CONNECTING_S + num_streams / _CONNECTIONS_PER_S, itl_s=gap_s) as stub:
        started_s, started_cpu_s = time.monotonic(), _cpu_s(stub)
        measured = run_plan(plan, TargetSpec("completions", stub.url), num_processes, capabilities=Capabilities())
        stub_cpu_share = (_cpu_s(stub) - started_cpu_s) / (time.monotonic() - started_s)
    return {
        "streams": num_streams,
        "processes": num_processes,
        "offered_events_per_s": rate,
        "num_failed": sum(not record.is_whole for record in measured.records),
        **_delivered(measured),
        "client_cpu_us_per_event": round(
            1e6 * sum(client.cpu_share * client.wall_s for client in measured.client) / (num_streams * num_events), 2
        ),
        "cpu_share": [round(client.cpu_share, 3) for client in measured.client],
        "stub_cpu_share": round(stub_cpu_share, 3),
    }


def climb(num_streams: int, num_processes: int) -> Iterator[dict[str, Any]]:
    """Twice the rate each time, until what is due is not delivered."""
    rate = _FIRST_RATE
    for _ in range(_NUM_RATES):
        row = measure(num_streams, num_processes, rate)
        yield row
        if row["num_failed"] or row["delivered_events_per_s"] < _LEAST_DELIVERED * rate:
            return
        rate *= 2


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ceiling of each number of streams and processes."""
    ceilings = []
    for key in dict.fromkeys((row["streams"], row["processes"]) for row in rows):
        mine = [row for row in rows if (row["streams"], row["processes"]) == key and not row["num_failed"]]
        best = max(mine, key=lambda row: row["delivered_events_per_s"], default=None)
        on_time = [row for row in mine if (row["loop_lag_s"]["p99"] or 0.0) <= _ALLOWED_LAG_S]
        best_on_time = max(on_time, key=lambda row: row["delivered_events_per_s"], default=None)
        ceilings.append(
            {
                "streams": key[0],
                "processes": key[1],
                "most_events_per_s": None if best is None else best["delivered_events_per_s"],
                "loop_lag_s": None if best is None else best["loop_lag_s"],
                "most_on_time_events_per_s": None if best_on_time is None else best_on_time["delivered_events_per_s"],
                "most_on_time_reads_per_s": None if best_on_time is None else best_on_time["delivered_reads_per_s"],
            }
        )
    return ceilings


def _delivered(measured: Measured) -> dict[str, Any]:
    streams = [record.arrivals_s for record in measured.records if record.is_whole]
    if not streams:
        return {"delivered_events_per_s": 0.0, "delivered_reads_per_s": 0.0, "loop_lag_s": {"p50": None, "p99": None, "max": None}}
    start_s, end_s = max(arrivals[0] for arrivals in streams), max(arrivals[-1] for arrivals in streams)
    times = np.concatenate([np.asarray(arrivals) for arrivals in streams])
    first_end_s = max(min(arrivals[-1] for arrivals in streams), start_s + (end_s - start_s) / 2)
    reads = np.concatenate([np.unique(arrivals) for arrivals in streams])
    length_s = first_end_s - start_s
    lags = np.concatenate([_lags_between(client, start_s, first_end_s) for client in measured.client])
    figures = {name: round(float(np.percentile(lags, p)), 6) for name, p in (("p50", 50), ("p99", 99), ("max", 100))}
    return {
        "delivered_events_per_s": round(float(((times > start_s) & (times <= first_end_s)).sum()) / length_s, 1),
        "delivered_reads_per_s": round(float(((reads > start_s) & (reads <= first_end_s)).sum()) / length_s, 1),
        "loop_lag_s": figures,
    }


def _lags_between(client: ClientLoad, start_s: float, end_s: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    # The watch begins a moment before the run's time 0; some wake-ups more or less make no difference.
    first, last = int(start_s / client.lag_interval_s), int(end_s / client.lag_interval_s) + 1
    return np.asarray(client.loop_lag_s[first:last])


def _cpu_s(stub: Stub) -> float:
    times = psutil.Process(stub.pid).cpu_times()
    return float(times.user + times.system)


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client.ceiling", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS, metavar="N", help=f"default: {' '.join(map(str, STREAMS))}")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=PROCESSES, metavar="N", help=f"default: {' '.join(map(str, PROCESSES))}"
    )
    options = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    busy_before = busyness()
    for num_processes in options.processes:
        for num_streams in options.streams:
            for row in climb(num_streams, num_processes):
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    result = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": ["python", "-m", "benchmarks.client.ceiling", *(sys.argv[1:] if words is None else words)],
        "machine": machine(),
        "busyness_before": busy_before,
        "definitions": DEFINITIONS,
        "summary": summary(rows),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
