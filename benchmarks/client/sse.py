"""Server-sent events out of bytes that may be split anywhere, by the rules of the HTML standard.

The usual read, one whole event, takes a short way; everything else goes line by line. Knows nothing of what events mean.
"""

from typing import NamedTuple

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`name` is what its `event:` field said, empty for none; `data` all its `data:` lines, joined by line feeds."""

    name: str
    data: bytes


class EventParser:
    """Feed it what is read, in order; it returns the events that each read completed."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._name = ""
        self._is_after_carriage_return = False
        self._is_at_start = True

    def feed(self, read: bytes) -> list[Event]:
        """The events that `read` completes."""
        if not self._rest and not self._data and not self._name and _is_one_event(read) and not self._is_after_carriage_return:
            self._is_at_start = False
            return [Event("", read[6:-2])]
        return [event for line in self._lines(read) if (event := self._take(line)) is not None]

    def finish(self) -> list[Event]:
        """The event that the end of the stream completes: one whose lines are whole and only the empty line after them is missing.

        The standard drops it, but servers that leave the last empty line out have still told everything. A line cut off is dropped."""
        return [event] if (event := self._take(b"")) is not None else []

    def _lines(self, read: bytes) -> list[bytes]:
        if self._is_after_carriage_return and read:
            self._is_after_carriage_return = False
            read = read.removeprefix(b"\n")
        text = self._rest + read
        if self._is_at_start:
            if len(text) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(text):
                self._rest = text
                return []
            self._is_at_start = False
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if b"\r" in text:
            # A line feed that belongs to a carriage return at the end may come with the next read.
            self._is_after_carriage_return = text.endswith(b"\r")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = text.split(b"\n")
        return lines

    def _take(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, b"\n".join(self._data)) if self._data else None
            self._data, self._name = [], ""
            return event
        # A comment is a line whose field has no name.
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")
        return None


def _is_one_event(read: bytes) -> bool:
    return read.startswith(b"data: ") and read.endswith(b"\n\n") and read.count(b"\n") == 2 and b"\r" not in read
