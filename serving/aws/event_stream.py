"""Events out of `application/vnd.amazon.eventstream`, whose bytes may be split anywhere. botocore reads the frames."""

from collections.abc import Iterator
from typing import NamedTuple

from botocore.eventstream import EventStreamBuffer, ParserError

from serving.errors import TierFailure


class Event(NamedTuple):
    """`name` of the event or of the exception, as the service writes it; `payload` bytes or JSON, by its name."""

    name: str
    payload: bytes
    is_exception: bool


class EventStreamParser:
    """Feed it what is read, in order. An event that the end of the stream cuts off never comes out."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._buffer = EventStreamBuffer()

    def feed(self, read: bytes) -> Iterator[Event]:
        """The events that `read` completes, up to the first that is damaged.

        Raises:
            TierFailure: what came is no such stream, or was damaged on its way.
        """
        self._buffer.add_data(read)
        try:
            for message in self._buffer:
                yield _event(message.headers, message.payload)
        except ParserError as error:
            raise TierFailure(f"{self._who} sent a damaged stream: {error}", reason="broken") from error


def _event(headers: dict[str, str], payload: bytes) -> Event:
    name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or ""
    return Event(name, payload, headers.get(":message-type") != "event")
