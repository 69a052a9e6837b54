"""`/ping`: tells the truth, at once, whatever else is going on."""

import statistics
import time

from container.conformance.check import INF, OWN, Check, Skipped, expect
from container.conformance.client import ACCEPT_LIMIT_S, PING_LIMIT_S, Ping
from container.conformance.load import Load
from container.conformance.requests import long
from container.conformance.server import Server

_NUM_STREAMS = 64
_P99_LIMIT_S = 0.1
_MIN_PINGS = 200
_FIRST_BYTES_LIMIT_S = 60.0


def _loading_ping(server: Server) -> str:
    if reason := server.hidden.get("start"):
        raise Skipped(reason)
    before = [ping for ping in server.loading.pings if ping.status not in (200, None)]
    expect(bool(before), "it never answered before it was ready, so nothing tells a slow start from a broken one")
    for ping in before:
        expect(ping.status == 503, f"{ping.status} instead of 503")
        expect({"status", "phase"} <= ping.told.keys(), f"503 with {ping.body[:80]!r}: no JSON with status and phase")
    phases = list(dict.fromkeys(str(ping.told["phase"]) for ping in before))
    return f"{len(before)} times 503, slowest {max(ping.total_s for ping in before) * 1000:.0f} ms; phases: {', '.join(phases)}"


def _pings_in_time(server: Server) -> str:
    if reason := server.hidden.get("start"):
        raise Skipped(reason)
    slow = [ping for ping in server.loading.pings if ping.status is None or ping.total_s > PING_LIMIT_S]
    when = ", ".join(f"{ping.at_s - server.loading.started:.1f} s" for ping in slow[:4])
    expect(not slow, f"{len(slow)} of {len(server.loading.pings)} not answered in 2 s, sent at {when}")
    return f"{len(server.loading.pings)} pings, slowest {max(ping.total_s for ping in server.loading.pings) * 1000:.0f} ms"


def _ready_ping(server: Server) -> str:
    pings = [server.client.ping() for _ in range(20)]
    expect(all(ping.status == 200 for ping in pings), f"answered {sorted({str(ping.status or ping.error) for ping in pings})}")
    expect(not any(ping.body for ping in pings), f"the body is {pings[0].body[:80]!r}, not empty")
    return f"200 and empty, median {statistics.median(ping.total_s for ping in pings) * 1000:.1f} ms"


def _truthful(server: Server) -> str:
    if server.loading.first_answer is None:
        raise Skipped(server.hidden.get("start", "the start was not watched"))
    status, took_s = server.loading.first_answer
    expect(status == 200, f"/ping said 200, and a request right after it got {status}")
    return f"a request sent at the first 200 was answered after {took_s:.2f} s"


def _under_load(server: Server) -> tuple[list[Ping], Load]:
    load = Load(server.client, _NUM_STREAMS, long(64))
    deadline = time.monotonic() + _FIRST_BYTES_LIMIT_S
    while load.num_started == 0 and load.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    expect(load.num_started > 0, f"none of {_NUM_STREAMS} streams began within {_FIRST_BYTES_LIMIT_S:.0f} s: {load.ends[:1]}")
    pings: list[Ping] = []
    while load.is_alive() and len(pings) < 10 * _MIN_PINGS:
        pings.append(server.client.ping())
        time.sleep(0.01)
    load.join()
    return pings, load


def _ping_under_load(server: Server) -> str:
    pings: list[Ping] = []
    loads = 0
    while len(pings) < _MIN_PINGS and loads < 10:
        more, load = _under_load(server)
        pings, loads = pings + more, loads + 1
        lost = [end for end in load.ends if not end.is_whole and end.status not in (429, 503)]
        expect(not lost, f"{len(lost)} of {_NUM_STREAMS} streams were lost, one with {lost[:1]}")
        refused = sum(end.status in (429, 503) for end in load.ends)
        expect(refused == 0, f"{refused} of {_NUM_STREAMS} streams were refused, so the load was not what it should be")
    wrong = [ping for ping in pings if ping.status != 200]
    expect(not wrong, f"{len(wrong)} of {len(pings)} pings got {wrong[0].status or wrong[0].error if wrong else ''} for mere load")
    p99_s = statistics.quantiles([ping.total_s for ping in pings], n=100)[98]
    told = f"p50 {statistics.median(ping.total_s for ping in pings) * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms of {len(pings)}"
    expect(p99_s < _P99_LIMIT_S, f"{told}: not under 100 ms")
    return told


def _accepts_under_load(server: Server) -> str:
    pings, _ = _under_load(server)
    accepted = [ping.connect_s if ping.connect_s is not None else float("inf") for ping in pings]
    told = f"{len(accepted)} tries while {_NUM_STREAMS} streams ran, slowest {max(accepted) * 1000:.0f} ms"
    expect(max(accepted) <= ACCEPT_LIMIT_S, told)
    return told


CHECKS = (
    Check("ping-loading", "While loading /ping is 503 with status and phase", OWN, _loading_ping),
    Check("ping-in-time", "While loading every ping is answered within 2 s", INF, _pings_in_time),
    Check("ping-truthful", "/ping is 200 only when a token can be had", INF, _truthful),
    Check("ping-ready", "When ready /ping is 200 with an empty body", INF, _ready_ping),
)
LOAD_CHECKS = (
    Check("ping-under-load", "p99 of /ping is under 100 ms, and never other than 200, while 64 streams run", OWN, _ping_under_load),
    Check("accepts-under-load", "Under full load a connection is accepted within 250 ms", INF, _accepts_under_load),
)
