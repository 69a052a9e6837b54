"""Waiting for AWS: one deadline for all the waits of a command, a line for each state and each minute."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from serving.aws.deployment.account import Account, RoleNotKnown
from serving.aws.deployment.description import Call, Lookup, Status
from serving.errors import DeployError

_ROLE_SPREADS_S = 60.0
"""IAM is eventually consistent; its guide names no time, in practice it is seconds."""


class Waiting:
    """`deadline_s` from now, for all of it; `poll_s` between two looks; `tell` is given each line of progress."""

    def __init__(self, account: Account, tell: Callable[[str], None], *, deadline_s: float, poll_s: float) -> None:
        self._account = account
        self._tell = tell
        self._deadline_s = deadline_s
        self._poll_s = poll_s
        self._started = time.monotonic()

    def until_settled(self, title: str, find: Lookup, status: Status | None) -> Mapping[str, Any] | None:
        """What is found once it is no longer on its way, None if it is not there. Raises DeployError at the deadline."""
        seen: tuple[str | None, float] | None = None
        while True:
            found = self._account.look(find)
            state = state_of(found, status)
            if found is None or status is None or state in status.ready | status.failed:
                return found
            elapsed_s = time.monotonic() - self._started
            if (state, elapsed_s // 60) != seen:
                self._tell(f"{title}: {state} ({elapsed_s:.0f} s)")
                seen = state, elapsed_s // 60
            self._pause(f"{title} is still {state}")

    def until_settled_again(self, title: str, find: Lookup, status: Status | None) -> Mapping[str, Any] | None:
        """The same after a change, which need not show at once: what was there before must not be taken for what comes of it."""
        self._pause(f"{title} has not shown its change yet")
        return self.until_settled(title, find, status)

    def until_gone(self, title: str, find: Lookup) -> None:
        """Raises DeployError at the deadline."""
        while self._account.look(find) is not None:
            self._pause(f"{title} is still being deleted")

    def send_with_new_role(self, call: Call) -> dict[str, Any]:
        """The answer of `call`, which may name a role so new that it is not known everywhere."""
        give_up = time.monotonic() + _ROLE_SPREADS_S
        while True:
            try:
                return self._account.send(call)
            except RoleNotKnown:
                if time.monotonic() > give_up:
                    raise
                self._pause(f"{call.operation} still does not know the role")

    def _pause(self, situation: str) -> None:
        if time.monotonic() - self._started + self._poll_s > self._deadline_s:
            raise DeployError(f"{situation} after {self._deadline_s:.0f} s (--deadline-s); the same command goes on waiting")
        time.sleep(self._poll_s)


def state_of(found: Mapping[str, Any] | None, status: Status | None) -> str | None:
    """What `found` says of itself."""
    return None if found is None or status is None else str(found.get(status.field))
