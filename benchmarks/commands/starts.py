"""One start of a server, and what several come to: seconds until it is ready and until it has made a token, by phases where it tells."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import psutil

from benchmarks.machine.servers import Running, first_model, ledger, sum_of
from benchmarks.measuring.statistics import summarize, t_interval

DEFINITIONS: Mapping[str, str] = {
    "ready_s": "Seconds from the start of the server's process to the first /ping that answers 200, asked every 0.2 s.",
    "first_token_s": "Seconds from the start of the process to the end of a request for one token, sent when /ping had answered 200.",
    "cpu_s": "CPU time that all processes of the server had taken by then.",
    "phases_s": "The server's own account of its start, from GET /memory.",
    "ratios": "Of each round, Tokenport's seconds by the peer's: a shared machine's speed drifts, within a round it is nearly the same.",
}
_FIRST_TOKEN_DEADLINE_S = 300.0


def measure_start(server: Running) -> dict[str, Any]:
    """Wait until it is ready, then for one token, which vLLM's `/ping` does not wait for.

    Raises:
        ServerFailed: it does not become ready.
        BenchmarkError: it does not say what it serves.
    """
    server.wait_ready()
    name = first_model(server.url)["id"]
    body = {"model": name, "prompt": [100, 200, 300], "max_tokens": 1}
    httpx.post(f"{server.url}/v1/completions", json=body, timeout=_FIRST_TOKEN_DEADLINE_S).raise_for_status()
    first_token_s = time.monotonic() - server.started
    account = ledger(server.url)
    return {
        "ready_s": server.start_s,
        "first_token_s": first_token_s,
        "cpu_s": sum_of(server.processes(), _cpu_ms) / 1000,
        "phases_s": account["start_up_s"] if account else None,
        "ledger": account,
    }


def _cpu_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1000


def load_before() -> float:
    """How busy the machine was, in processes over the last minute."""
    return round(os.getloadavg()[0], 2)


def summary(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several starts of one server. Starts are independent of each other, so the interval is that of their own spread."""
    phases = list(dict.fromkeys(phase for start in starts for phase in start["phases_s"] or {}))
    return {
        **{name: spread([start[name] for start in starts]) for name in ("ready_s", "first_token_s", "cpu_s")},
        "phases_s": {
            phase: spread([start["phases_s"][phase] for start in starts if phase in (start["phases_s"] or {})]) for phase in phases
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, percentiles and intervals of independent values."""
    found = summarize(values)
    found["ci"]["mean"] = t_interval(values)
    return found


def ratios(own: Mapping[int, Mapping[str, Any]], peers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Of starts by round, within each round."""
    rounds = [number for number in own if number in peers]
    return {name: spread([own[number][name] / peers[number][name] for number in rounds]) for name in ("ready_s", "first_token_s")}
