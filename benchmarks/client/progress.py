"""How far one process is with its part of the plan: counted as it goes, told a few times a second."""

from dataclasses import dataclass, field

from benchmarks.measuring.record import Record


@dataclass(slots=True)
class Progress:
    """`num_done` counts whole answers, `num_failed` the others that were sent and are over."""

    num_sent: int = 0
    num_done: int = 0
    num_failed: int = 0
    _num_ended_tokens: int = 0
    _running: dict[int, Record] = field(default_factory=dict)

    def begin(self, record: Record) -> None:
        """It is being sent."""
        self.num_sent += 1
        self._running[record.number] = record

    def end(self, record: Record) -> None:
        """It is over, one way or the other."""
        self._running.pop(record.number, None)
        self._num_ended_tokens += record.num_tokens
        if record.is_whole:
            self.num_done += 1
        else:
            self.num_failed += 1

    def counts(self) -> dict[str, int]:
        """The counts so far; tokens of running answers are the pieces that came, which costs nothing while they come."""
        running = sum(len(record.arrivals_s) for record in self._running.values())
        return {
            "sent": self.num_sent,
            "done": self.num_done,
            "failed": self.num_failed,
            "output_tokens": self._num_ended_tokens + running,
        }
