"""One target under several measured runs: each plan is driven and watched, then judged, and becomes a `Point` with all that was seen."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.client.processes import Measured
from benchmarks.load.plan import Plan
from benchmarks.machine.telemetry import Telemetry
from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.pooling import pool
from benchmarks.measuring.record import ClientLoad
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.statistics import spread
from benchmarks.measuring.validity import Judgement, judge, lateness_s
from benchmarks.measuring.window import Window, steady_window

Drive = Callable[[Plan], Measured]


@dataclass(frozen=True, slots=True)
class Point:
    """One measured run. `load` says what was asked for, `timeline` what the server told meanwhile, on the run's clock."""

    label: str
    load: Mapping[str, Any]
    repeat: int
    plan: Plan
    measured: Measured
    window: Window
    judgement: Judgement
    slo: Slo | None
    timeline: Sequence[Mapping[str, Any]]

    def metrics(self, *, from_send: bool = False) -> dict[str, Any]:
        """Within the window, from the scheduled time or from send."""
        return metrics(self.measured.records, self.window, self.slo, from_send=from_send)

    def to_json(self, index: int) -> dict[str, Any]:
        """Its entry under the document's `runs`. The raw records stand under `requests`."""
        return {
            "index": index,
            "label": self.label,
            "load": dict(self.load),
            "repeat": self.repeat,
            "valid": not self.judgement.invalid_reasons,
            "invalid_reasons": self.judgement.invalid_reasons,
            "warnings": self.judgement.warnings,
            "window": dataclasses.asdict(self.window),
            "metrics": self.metrics(),
            "from_send": self.metrics(from_send=True),
            "client": [client_to_json(client) for client in self.measured.client],
            "send_lateness_s": spread(lateness_s(self.plan, self.measured.records)),
            "timeline": list(self.timeline),
        }


def measure(plan: Plan, drive: Drive, watch: Telemetry, *, label: str, load: Mapping[str, Any], repeat: int, slo: Slo | None) -> Point:
    """Drive `plan` while `watch` looks on."""
    with watch:
        measured = drive(plan)
    watch.origin = measured.origin_s
    if plan.duration_s is not None and not is_open(plan) and not measured.interrupted:
        # A closed loop that the clock ends keeps more ready than it sends: what is left of that never was to be sent.
        measured = dataclasses.replace(measured, records=[record for record in measured.records if record.error_kind != "not_sent"])
    window = steady_window(measured.records, is_open=is_open(plan))
    judgement = judge(plan, measured.records, measured.client, interrupted=measured.interrupted, lost=measured.lost)
    return Point(label, load, repeat, plan, measured, window, judgement, slo, watch.rows())


def is_open(plan: Plan) -> bool:
    """Whether requests come by the clock, whatever the answers do."""
    return any(request.at_s is not None for request in plan.requests)


def pooled(points: Sequence[Point], *, from_send: bool = False) -> dict[str, Any]:
    """The metrics of all repeats of one load."""
    return pool(
        [point.metrics(from_send=from_send) for point in points],
        [point.measured.records for point in points],
        [point.window for point in points],
        from_send=from_send,
    )


def requests(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The raw records of all points, each with its run's index."""
    return [record.to_json() | {"run": index} for index, point in enumerate(points) for record in point.measured.records]


def client_to_json(client: ClientLoad) -> dict[str, Any]:
    """How a client process fared."""
    return {
        "process": client.process,
        "wall_s": client.wall_s,
        "cpu_share": client.cpu_share,
        "loop_lag_s": spread(client.loop_lag_s),
        "num_requests": client.num_requests,
    }
