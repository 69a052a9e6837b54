"""JSON chunks out of a streamed answer whose bytes may be split anywhere: server-sent events, or JSON lines.

Servers also end in ways that no standard knows: `[DONE]` on a line of its own, `[DONE]` right behind the last chunk, no last line feed.
All are read. Knows nothing of what a chunk says.
"""

import json

_DONE = "[DONE]"
_DATA = "data:"


class ChunkParser:
    """Feed it what is read, in order. `is_done`: `[DONE]` has come; what follows it is dropped."""

    def __init__(self) -> None:
        self.is_done = False
        self._rest = b""
        self._data: list[str] = []

    def feed(self, read: bytes) -> list[str]:
        """The chunks that `read` completes, each a text on one line."""
        # Only whole lines are decoded: a line feed is never a part of another character.
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [chunk for line in lines for chunk in self._take(line.decode(errors="replace").rstrip("\r"))]

    def finish(self) -> list[str]:
        """What the end of the stream completes. A chunk that it cut off is dropped."""
        last = [*self._take(self._rest.decode(errors="replace").rstrip("\r")), *self._dispatch()]
        self._rest = b""
        return [chunk for chunk in last if _is_json(chunk)]

    def _take(self, line: str) -> list[str]:
        if self.is_done:
            return []
        if line.startswith(_DATA):
            self._data.append(line[len(_DATA) :].removeprefix(" "))
            return self._dispatch() if line.endswith(_DONE) else []
        if line.startswith(("{", _DONE)):
            # A line of JSON. In server-sent events it would be a field that nobody knows.
            before = self._dispatch()
            self._data = [line]
            return before + self._dispatch()
        # Other fields and comments say nothing of the answer.
        return [] if line else self._dispatch()

    def _dispatch(self) -> list[str]:
        # JSON may have a space where the event had its line feed, and a chunk stays one line.
        text = " ".join(self._data)
        self._data = []
        before = text.removesuffix(_DONE).rstrip().removesuffix(_DATA).rstrip()
        # What is cut off may end in these letters too.
        if text.endswith(_DONE) and (not before or _is_json(before)):
            self.is_done = True
            text = before
        return [text] if text else []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
