"""The life of the server as a state machine with no I/O.

STARTING -> READY <-> STALLED, from all three -> DRAINING -> STOPPED, and from all four -> FAILED. While STARTING, `phase` tells what is
being done and `fraction` how far it is. Everything that must know whether to serve reads this object; nothing here waits or asks.
"""

import time
from collections.abc import Callable
from enum import StrEnum


class State(StrEnum):
    """Where the server is in its life."""

    STARTING = "starting"
    READY = "ready"
    STALLED = "stalled"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


_NEXT: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.DRAINING, State.FAILED}),
    State.READY: frozenset({State.STALLED, State.DRAINING, State.FAILED}),
    State.STALLED: frozenset({State.READY, State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
}


class Lifecycle:
    """Current state with its phase, progress and reason. `start_up_s`: seconds of each phase of start-up, in order, as far as it is over;
    the first is counted from `age_s` before now."""

    def __init__(self, age_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase_began = clock() - age_s
        self.start_up_s: dict[str, float] = {}
        self.state = State.STARTING
        self.phase = "starting"
        self.fraction: float | None = None
        self.reason: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a token can be produced now and new requests are welcome."""
        return self.state is State.READY

    def progress(self, phase: str, fraction: float | None = None) -> None:
        """Name what start-up does now; `fraction` is 0..1 where it is known. Ignored after start-up: late reports change nothing."""
        if self.state is not State.STARTING:
            return
        if phase != self.phase:
            self._end_phase()
        self.phase, self.fraction = phase, fraction

    def ready(self) -> None:
        """A token has been produced, for the first time or after a standstill."""
        self._move(State.READY)

    def stall(self, reason: str) -> None:
        """There is work, and the engine does not get on."""
        self._move(State.STALLED, reason)

    def drain(self, reason: str) -> None:
        """No new requests; those running go on."""
        self._move(State.DRAINING, reason)

    def stop(self) -> None:
        """Drained: nothing runs."""
        self._move(State.STOPPED)

    def fail(self, reason: str) -> None:
        """The engine is dead or never came up. `reason` is one line."""
        self._move(State.FAILED, reason)

    def snapshot(self) -> dict[str, str | float]:
        """What `/ping` shows while not ready: status, phase, and where known fraction and reason."""
        shown: dict[str, str | float] = {"status": self.state.value, "phase": self.phase}
        if self.fraction is not None:
            shown["fraction"] = round(self.fraction, 3)
        if self.reason is not None:
            shown["reason"] = self.reason
        return shown

    def _move(self, state: State, reason: str | None = None) -> None:
        if state not in _NEXT[self.state]:
            raise ValueError(f"lifecycle: {self.state} cannot become {state}")
        if self.state is State.STARTING:
            self._end_phase()
        self.state, self.phase, self.fraction, self.reason = state, state.value, None, reason

    def _end_phase(self) -> None:
        # A phase may come again: several processes report.
        now = self._clock()
        self.start_up_s[self.phase] = self.start_up_s.get(self.phase, 0.0) + now - self._phase_began
        self._phase_began = now
