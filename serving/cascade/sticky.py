"""Conversations that were handed to a larger tier stay there for a while, so that they are not answered in two voices.

A conversation is its session's id, or how it begins: everything up to the first words of the user. Only hashes are kept, in memory, and of
too many the least recently used goes.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

_CAPACITY = 100_000
_NEW_SESSION = "NEW_SESSION"
"""What SageMaker's header says instead of an id when a session is to begin."""


def conversation_of(body: Mapping[str, Any], caller: str, session: str) -> str | None:
    """A hash that names the conversation; None where there is none: a completion without a session, or messages of no known shape."""
    if session and session != _NEW_SESSION:
        return _hash([caller, "session", session])
    messages = body.get("messages")
    if not isinstance(messages, list):
        return None
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    return _hash([caller, "messages", messages[: roles.index("user") + 1]]) if "user" in roles else None


def is_continued(body: Mapping[str, Any], session: str) -> bool:
    """Whether something has been answered in this conversation. Two that begin with the same words are told apart by nothing else."""
    if session and session != _NEW_SESSION:
        return True
    messages = body.get("messages")
    return isinstance(messages, list) and any(isinstance(message, dict) and message.get("role") == "assistant" for message in messages)


class Sticky:
    """Which tier a conversation stays with."""

    def __init__(self, lasts_s: float, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasts_s = lasts_s
        self._capacity = capacity
        self._clock = clock
        self._tiers: OrderedDict[str, tuple[str, float]] = OrderedDict()

    @property
    def is_on(self) -> bool:
        """Whether any conversation stays."""
        return self._lasts_s > 0

    def tier_of(self, conversation: str | None) -> str | None:
        """The tier's name; None if it may be answered by any."""
        if conversation is None or conversation not in self._tiers:
            return None
        name, until = self._tiers[conversation]
        if until <= self._clock():
            del self._tiers[conversation]
            return None
        self._tiers.move_to_end(conversation)
        return name

    def keep(self, conversation: str | None, tier: str) -> None:
        """From now on, for as long as it lasts, it stays with `tier`."""
        if conversation is None or not self.is_on:
            return
        self._tiers[conversation] = tier, self._clock() + self._lasts_s
        self._tiers.move_to_end(conversation)
        if len(self._tiers) > self._capacity:
            self._tiers.popitem(last=False)


def _hash(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
