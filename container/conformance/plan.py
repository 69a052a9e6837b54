"""Which checks share a start, since a start may take a minute: one for most of them, then one for each way to end.

The order within a start matters: what loads the server comes late, what ends it last.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from container.conformance import (
    checks_access,
    checks_adapters,
    checks_batch,
    checks_deadlines,
    checks_headers,
    checks_health,
    checks_invocations,
    checks_limits,
    checks_start,
    checks_stop,
    checks_streams,
    checks_websocket,
    faults,
)
from container.conformance.check import Check, Result, carry_out
from container.conformance.faults import Fault
from container.conformance.server import StartFailed
from container.conformance.target import Target


@dataclass(frozen=True)
class Stage:
    """One start and its checks, by group. `tokenport` are variables that save time or switch on what is checked; others get none."""

    groups: Mapping[str, tuple[Check, ...]]
    tokenport: Mapping[str, str] = field(default_factory=dict)
    default_port: bool = False
    needs_worker: bool = False

    def select(self, only: Collection[str]) -> "Stage":
        """With the checks and groups named alone; with all if none is."""
        chosen = {
            group: tuple(check for check in checks if not only or group in only or check.name in only)
            for group, checks in self.groups.items()
        }
        kept = {group: checks for group, checks in chosen.items() if checks}
        return Stage(kept, self.tokenport, self.default_port, self.needs_worker)


STAGES = (
    Stage(
        {
            "start": checks_start.CHECKS,
            "health": checks_health.CHECKS,
            "invocations": checks_invocations.CHECKS,
            "streams": checks_streams.CHECKS,
            "headers": checks_headers.CHECKS,
            "batch": checks_batch.CHECKS,
            "websocket": checks_websocket.CHECKS,
            "access": checks_access.CHECKS,
            "limits": checks_limits.CHECKS,
            "load": checks_health.LOAD_CHECKS + checks_limits.LOAD_CHECKS,
            "afterwards": checks_start.AFTERWARDS_CHECKS,
            "drain": checks_stop.DRAIN_CHECKS,
        }
    ),
    Stage(
        {
            "default port": checks_start.DEFAULT_PORT_CHECKS,
            "keys": checks_access.KEY_CHECKS,
            "adapters": checks_adapters.CHECKS,
            "deadlines": checks_deadlines.CHECKS,
            "drain deadline": checks_stop.DEADLINE_CHECKS,
        },
        tokenport={
            "TOKENPORT_DRAIN_S": "3",
            "TOKENPORT_DEADLINE_S": "3",
            "TOKENPORT_STREAM_DEADLINE_S": "6",
            "TOKENPORT_API_KEY": checks_access.API_KEY,
            "TOKENPORT_ENABLE_LORA": "true",
        },
        default_port=True,
    ),
    Stage({"second signal": checks_stop.SECOND_SIGNAL_CHECKS}),
    Stage({"faults": faults.KILL_ENGINE}),
    Stage({"faults": faults.STOP_ENGINE}, tokenport={"TOKENPORT_STALL_S": str(faults.STALL_S)}),
    Stage({"faults": faults.KILL_WORKER}, needs_worker=True),
    Stage({"faults": faults.STOP_WORKER}, tokenport={"TOKENPORT_STALL_S": str(faults.STALL_S)}, needs_worker=True),
)


def names() -> dict[str, str]:
    """Every check's name and group."""
    return {check.name: group for stage in STAGES for group, checks in stage.groups.items() for check in checks}


@dataclass
class Run:
    """What came of all stages."""

    results: list[Result] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _has_worker: bool | None = None

    def carry_out(self, target: Target, stages: Collection[Stage], on_result: Callable[[Result], None]) -> None:
        """Run the stages one after the other, telling each result as it comes."""
        for number, stage in enumerate(stages):
            for result in self._stage(target, stage, is_first=number == 0):
                self.results.append(result)
                on_result(result)

    def _stage(self, target: Target, stage: Stage, *, is_first: bool) -> Iterator[Result]:
        if not target.can_start and not is_first:
            yield from _all(stage, "skip", "needs a start of its own")
            return
        if stage.needs_worker and self._has_worker is False:
            yield from _all(stage, "skip", "its engine core computes itself: no worker process")
            return
        environ = stage.tokenport if target.is_tokenport else {}
        with target.start(environ, default_port=stage.default_port) as server, server.client:
            server.client.api_key = environ.get("TOKENPORT_API_KEY")
            try:
                if target.can_start:
                    server.watch_start(target.start_limit_s)
            except StartFailed as error:
                yield from _all(stage, "fail", f"it did not start: {error}")
                return
            if target.can_start:
                self._has_worker = server.worker() is not None
            for group, checks in stage.groups.items():
                for check in checks:
                    yield carry_out(check, group, server)
            if isinstance(fault := server.observed.get("fault"), Fault):
                self.faults.append(fault)


def _all(stage: Stage, outcome: str, told: str) -> Iterator[Result]:
    for group, checks in stage.groups.items():
        for check in checks:
            yield Result(check, group, "skip" if outcome == "skip" else "fail", told, 0.0)
