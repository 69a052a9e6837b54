"""Cuts a stream anew, so that no client comes to rely on a part being an event, a line or a whole character.

The platform promises nothing about where its parts end. Knows no time: the caller flushes what is held when nothing more comes.
"""

from random import Random

_LARGEST_PART_BYTES_LOG2 = 16
_HOLD = 0.3


class Resplitter:
    """Bytes in, parts out; joined, both are the same. The same seed and the same feeding give the same parts."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held = bytearray()

    @property
    def is_holding(self) -> bool:
        """Whether bytes wait to be merged with the next ones."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; give the parts that go out now. Some bytes may stay back, to be merged with what comes next."""
        self._held += data
        parts = []
        while self._held and self._random.random() >= _HOLD:
            parts.append(self._cut())
        return parts

    def flush(self) -> list[bytes]:
        """Give everything that was held."""
        parts = []
        while self._held:
            parts.append(self._cut())
        return parts

    def _cut(self) -> bytes:
        # Spread over the orders of magnitude, so that single bytes and large parts are both common.
        largest = min(len(self._held), 2 ** self._random.randint(0, _LARGEST_PART_BYTES_LOG2))
        size = self._random.randint(1, largest)
        part = bytes(self._held[:size])
        del self._held[:size]
        return part
