"""What was observed of each request: raw times, of which every metric is computed later. Nothing here is averaged or rounded away."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Record:
    """One request as it went. Times are seconds on the machine's monotonic clock since the run's origin, None for what never happened.

    `scheduled_s`: when it was due: the plan's time in an open loop; in a closed loop when a place became free; in a conversation when the
    answer before it had ended, plus the time to think. `sent_s`: when its first byte was handed to the network. `arrivals_s`: when each
    piece of output reached the client; role-only and usage-only events are no output. `arrival_tokens`: how many tokens each of these
    brought, as the server counted them in the stream (vLLM's continuous usage); None where it does not. `ended_s`: the end of the answer,
    or of the attempt. `output_tokens`, `prompt_tokens`, `cached_tokens`: the server's `usage`; None where it gives none. `error` is None
    for an answer that came whole, else one line; `error_kind` is one of `refused` (an HTTP error status), `connection`, `timeout`,
    `broken` (the stream ended early, or was cut off with the run), `reported` (an error event inside the stream), `malformed`, `not_sent`
    (the run was over before its turn, or the turn before it failed), `lost` (the client process that had it died)."""

    number: int
    scheduled_s: float
    max_tokens: int
    sent_s: float | None = None
    arrivals_s: list[float] = field(default_factory=list)
    arrival_tokens: list[int] | None = None
    ended_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: str | None = None
    error_kind: str | None = None
    is_streamed: bool = True
    stage: int = 0
    conversation: int | None = None
    run: int = 0

    @property
    def is_whole(self) -> bool:
        """The answer came to its proper end."""
        return self.error is None and self.ended_s is not None

    @property
    def num_tokens(self) -> int:
        """Output tokens: as the server counts them, else by the stream, a piece a token where it tells no numbers."""
        if self.output_tokens is not None:
            return self.output_tokens
        return sum(self.arrival_tokens) if self.arrival_tokens is not None else len(self.arrivals_s)

    def to_json(self) -> dict[str, Any]:
        """All fields; times to the microsecond."""
        fields = asdict(self)
        for name in ("scheduled_s", "sent_s", "ended_s"):
            fields[name] = None if fields[name] is None else round(fields[name], 6)
        fields["arrivals_s"] = [round(time, 6) for time in self.arrivals_s]
        return fields


def from_json(fields: dict[str, Any]) -> Record:
    """The inverse of `Record.to_json`."""
    return Record(**fields)


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """How one client process fared while it drove load. `loop_lag_s`: how late each of its regular wake-ups came, in order, every
    `lag_interval_s`; `cpu_share`: its CPU time by the wall time, 1.0 for one whole core; `num_requests` that it sent."""

    process: int
    wall_s: float
    cpu_share: float
    lag_interval_s: float
    loop_lag_s: tuple[float, ...]
    num_requests: int
