"""The part of a run in which the load was what was asked for, found from the records: ramp and drain left out.

Closed loop: from the first end of an answer (until then all places ran the same first wave) to the last sending (after it places stay
empty). Open loop: from one median answer's time after the first request (by then the first have gone as others came; at most a tenth of
the run) to the last scheduled time. It is found from when requests were due and sent, never from how fast they went: a stall must not be
cut out as if it were a ramp. Where it would be less than a quarter of the run, the whole run counts, and the document says so."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring.record import Record

_LEAST_SHARE = 0.25
_LARGEST_RAMP = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds since the run's origin; `how` it was found, in words."""

    start_s: float
    end_s: float
    how: str
    is_steady: bool

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def holds(self, time_s: float) -> bool:
        """Whether this moment lies in it."""
        return self.start_s <= time_s <= self.end_s


def whole_run(records: Sequence[Record]) -> Window:
    """From the first request to the end of the last; (0, 0) where nothing was sent."""
    sent = [record for record in records if record.sent_s is not None]
    if not sent:
        return Window(0.0, 0.0, "nothing was sent", is_steady=False)
    start = min(record.scheduled_s for record in sent)
    return Window(start, max(_end_of(record) for record in sent), "the whole run", is_steady=False)


def steady_window(records: Sequence[Record], *, is_open: bool) -> Window:
    """Where the load was steady, or the whole run where that is too short."""
    whole = whole_run(records)
    found = _open(records) if is_open else _closed(records)
    if found is None or found.length_s < _LEAST_SHARE * whole.length_s or found.length_s <= 0:
        return Window(whole.start_s, whole.end_s, "the whole run: too short to tell ramp and drain from a steady part", is_steady=False)
    return found


def _closed(records: Sequence[Record]) -> Window | None:
    ends = [_end_of(record) for record in records if record.sent_s is not None]
    sendings = [record.sent_s for record in records if record.sent_s is not None]
    if not ends:
        return None
    return Window(min(ends), max(sendings), "from the first answer's end to the last request's sending", is_steady=True)


def _open(records: Sequence[Record]) -> Window | None:
    sent = [record for record in records if record.sent_s is not None]
    if len(sent) < 2:
        return None
    first, last = min(record.scheduled_s for record in sent), max(record.scheduled_s for record in sent)
    ramp = min(statistics.median(_end_of(record) - record.scheduled_s for record in sent), _LARGEST_RAMP * (last - first))
    return Window(first + ramp, last, "from one median answer's time after the first request to the last request's time", is_steady=True)


def _end_of(record: Record) -> float:
    """When it was over, well or badly."""
    candidates = [record.ended_s, record.sent_s, *record.arrivals_s[-1:]]
    return max(time for time in candidates if time is not None)
