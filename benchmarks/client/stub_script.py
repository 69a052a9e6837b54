"""What the stub server is told: how each request is answered, and what holds for the whole server; and the clock that it works by."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import msgspec

from serving.errors import BenchmarkError

MODEL = "stub"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered. Times count from its arrival, tokens from 1; None and 0 switch a fault off.

    The k-th token comes at `ttft_s + (k - 1) * itl_s`. `tokens_per_event` merges tokens into one event, which comes with its last token;
    `events_per_write` holds events back until so many go out in one write. `split_bytes` cuts every write into pieces of so many bytes,
    `split_gap_s` apart. `accept_delay_s`: the request lies unread so long. `status` and `status_every`: every so manieth request of the
    server is refused with it. `close_after_tokens`, `error_after_tokens`, `garbage_after_tokens`, `hang_after_tokens`: the stream breaks
    off, tells an error, sends no JSON, or stops for good after so many. `refused_fields`: a body with one of them gets 400, dots going
    inwards. `usage`: `right`, `absent`, or `wrong` (one too many). `piece`: where a chat's output stands."""

    num_tokens: int | None = None
    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens_per_event: int = 1
    events_per_write: int = 1
    split_bytes: int = 0
    split_gap_s: float = 0.001
    accept_delay_s: float = 0.0
    status: int = 200
    status_every: int = 1
    close_after_tokens: int | None = None
    error_after_tokens: int | None = None
    error_form: Literal["data", "event"] = "data"
    garbage_after_tokens: int | None = None
    hang_after_tokens: int | None = None
    refused_fields: tuple[str, ...] = ()
    usage: Literal["right", "absent", "wrong"] = "right"
    has_continuous_usage: bool = True
    has_done: bool = True
    finish_reason: str | None = "length"
    piece: Literal["content", "reasoning_content", "tool_calls"] = "content"
    line_end: str = "\n"
    has_comments: bool = False
    num_prompt_tokens: int | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """What holds for the whole server. `stall_s` seconds long, from `stall_at_s` after its first request on, nobody is given anything:
    its work stands still, and goes on where it was. `routes`: paths that exist, None for all. `model`: None for no `/v1/models`."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    stall_at_s: float | None = None
    stall_s: float = 0.0
    routes: tuple[str, ...] | None = None
    model: str | None = MODEL
    has_tokenize: bool = True


def script_from(text: str) -> Script:
    """A script from JSON: the fields of `Script` and of `Behaviour` side by side.

    Raises:
        BenchmarkError: it is no JSON object, or has a field that neither knows.
    """
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
        own = {name.name for name in fields(Script)} - {"behaviour"}
        behaviour = Behaviour(**{name: value for name, value in given.items() if name not in own})
        return Script(behaviour, **{name: value for name, value in given.items() if name in own})
    except (msgspec.DecodeError, TypeError) as error:
        raise BenchmarkError(f"--script {text!r}: {error}") from None


class WorkClock:
    """Time at which the server works: it stands still while the server stalls."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._stall_from_s: float | None = None

    def note_request(self, now_s: float) -> None:
        """The first request is what the stall's time counts from."""
        if self._stall_from_s is None and self._script.stall_at_s is not None:
            self._stall_from_s = now_s + self._script.stall_at_s

    def work_at(self, time_s: float) -> float:
        """How far work is at a time."""
        if self._stall_from_s is None:
            return time_s
        return min(time_s, max(self._stall_from_s, time_s - self._script.stall_s))

    def time_of(self, work_s: float) -> float:
        """When work is so far. What would come at the very start of the stall comes after it."""
        if self._stall_from_s is None or work_s < self._stall_from_s:
            return work_s
        return work_s + self._script.stall_s
